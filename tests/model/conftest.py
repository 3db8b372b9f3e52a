"""Small models, and ids for them."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from heliograph.model import Transformer, TransformerConfig

MakeModel = Callable[..., Transformer]
Calls = Callable[[Callable[[], object]], Counter[str]]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small lose more by waiting for a second thread than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def make_model() -> MakeModel:
    """Builds a small model of 2 + 2 layers without dropout, the same one for the same arguments."""

    def make(**changes: Any) -> Transformer:
        sizes: dict[str, Any] = {
            "vocabulary_size": 23,
            "width": 16,
            "heads": 4,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "feed_forward": 32,
            "dropout": 0.0,
            "attention_dropout": 0.0,
            "embedding_dropout": 0.0,
        }
        torch.manual_seed(3)
        return Transformer(TransformerConfig(**(sizes | changes)))

    return make


@pytest.fixture
def source() -> torch.Tensor:
    """Three sentences of 6, 3 and 1 tokens, end token included."""
    return torch.tensor([[5, 9, 17, 4, 11, 2], [21, 3, 2, 0, 0, 0], [2, 0, 0, 0, 0, 0]])


@pytest.fixture
def target() -> torch.Tensor:
    """Their translations of 3, 4 and 1 tokens, behind a start token."""
    return torch.tensor([[1, 6, 8, 13, 0], [1, 15, 3, 22, 10], [1, 7, 0, 0, 0]])


@pytest.fixture
def target_out() -> torch.Tensor:
    """The same before an end token."""
    return torch.tensor([[6, 8, 13, 2, 0], [15, 3, 22, 10, 2], [7, 2, 0, 0, 0]])


@pytest.fixture
def calls() -> Calls:
    """How often a function calls each of torch's operations, those inside others included."""

    def count(function: Callable[[], object]) -> Counter[str]:
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            function()
        return Counter({each.key: each.count for each in profiled.key_averages()})

    return count


@pytest.fixture
def look_every(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Has search and sampling look only every so many tokens who is done, as on a GPU."""
    return lambda tokens: monkeypatch.setattr(
        "heliograph.model.search.tokens_per_look", lambda _: tokens
    )
