"""Search and sampling as on a GPU: they seldom look who is done, find the same, copy no more than
they must, and wait for nothing between two looks."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from heliograph.model import (
    Constraints,
    Hypothesis,
    Transformer,
    TransformerConfig,
    beam_search,
    sample,
)
from heliograph.model.sampling import _Drawing
from heliograph.model.search import TOKENS_PER_LOOK, _Search, divisors, looks, tokens_per_look

MakeModel = Callable[..., Transformer]
Calls = Callable[[Callable[[], object]], Counter[str]]
LookEvery = Callable[[int], None]
META = torch.device("meta")


class Beginning:
    """A prefix of fixed tokens."""

    def __init__(self, tokens: list[int]) -> None:
        self.tokens = tokens

    def allowed(self, tokens: Sequence[int]) -> Sequence[int] | None:
        if list(tokens[: len(self.tokens)]) != self.tokens[: len(tokens)]:
            return []
        return self.tokens[len(tokens) : len(tokens) + 1] or None


def random_model(draw: random.Random) -> Transformer:
    """Decided more or less, with an end token that is likely or hardly ever so."""
    torch.manual_seed(draw.randrange(10_000))
    size = draw.choice([6, 23, 700])  # from 640 on `likeliest` takes the stretches of a beam of 2
    model = Transformer(TransformerConfig(size, 16, 4, 1, 2, 32)).eval()
    with torch.no_grad():
        model.embedding.weight.mul_(draw.choice([1.0, 1.5, 3.0]))
        model.embedding.weight[2].mul_(draw.choice([0.1, 1.0, 2.0]))
    return model


def random_batch(draw: random.Random, vocabulary_size: int) -> tuple[Tensor, Callable[..., Any]]:
    """Sources, and what makes constraints of them: search uses these up."""
    count = draw.randint(1, 9)
    source = torch.zeros(count, 9, dtype=torch.int64)
    for row in source:
        words = [draw.randrange(3, vocabulary_size) for _ in range(draw.randrange(9))]
        row[: len(words) + 1] = torch.tensor([*words, 2])
    limits = torch.tensor([draw.randint(0, 19) for _ in range(count)])
    least = torch.tensor([draw.randint(0, 9) for _ in range(count)])
    short, ngram = draw.random() < 0.5, draw.randint(0, 3)
    prefixes = None
    if draw.random() < 0.5:
        prefixes = [
            Beginning([draw.randrange(3, vocabulary_size) for _ in range(draw.randint(1, 4))])
            if draw.random() < 0.7
            else None
            for _ in range(count)
        ]
    return source, lambda: Constraints(limits, least if short else None, ngram, prefixes)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), every=st.sampled_from([2, 3, TOKENS_PER_LOOK, 1000]))
def test_who_waits_to_leave_is_translated_the_same(
    look_every: LookEvery, seed: int, every: int
) -> None:
    """By search and by sampling, to the last bit."""
    draw = random.Random(seed)
    model = random_model(draw)
    source, constraints = random_batch(draw, model.config.vocabulary_size)
    beam = draw.randint(1, 4)
    penalties = {"length_penalty": draw.choice([0.0, 0.6, 1.0, 2.0])}
    penalties["length_offset"] = draw.choice([0.0, 5.0])
    search = {"beam": beam, "n_best": draw.randint(1, beam)}
    chance = {"draws": draw.randint(1, 3), "top_k": draw.choice([0, 3])}
    seeds = range(source.size(0))

    def both() -> list[list[list[Hypothesis]]]:
        return [
            beam_search(model, source, constraints(), **search, **penalties),
            sample(model, source, constraints(), seeds, **chance, **penalties),
        ]

    look_every(1)
    expected = both()
    look_every(every)
    assert both() == expected


@pytest.mark.parametrize("every", [1, 3, 8])
def test_no_more_tokens_are_taken_than_a_translation_may_have(
    make_model: MakeModel, source: Tensor, look_every: LookEvery, every: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    look_every(every)
    model, limits = endless(make_model), torch.tensor([0, 4, 6])
    step, steps = model.step, []
    monkeypatch.setattr(
        model, "step", lambda tokens, state: steps.append(len(tokens)) or step(tokens, state)
    )
    beam_search(model, source, Constraints(limits), 2)
    sample(model, source, Constraints(limits), [1, 2, 3])
    assert len(steps) == 2 * 7
    # Who may have no token leaves after the first; on a GPU with the next look.
    assert steps[:7] == {1: [3, 2, 2, 2, 2, 1, 1], 3: [3, 3, 3, 2, 2, 2, 1], 8: [3] * 7}[every]


def test_a_gpu_is_looked_at_now_and_then_and_at_the_end() -> None:
    assert tokens_per_look(torch.device("cpu")) == 1
    assert tokens_per_look(torch.device("cuda:3")) == TOKENS_PER_LOOK == 8
    assert list(looks(2, torch.device("cpu"))) == [True] * 3
    seen = list(looks(18, torch.device("cuda")))
    assert len(seen) == 19
    assert [number for number, look in enumerate(seen, start=1) if look] == [8, 16, 19]


class NothingFromTheHost(TorchDispatchMode):
    """Fails where data on the CPU would have to be sent to the device."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        assert func is not torch.ops.aten.lift_fresh.default, "made of Python's numbers"
        for each in torch.utils._pytree.tree_leaves((args, kwargs)):
            if isinstance(each, Tensor):
                assert each.device == META, f"{func} of a tensor on the {each.device}"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("beam", [1, 3])
def test_between_two_looks_nothing_is_asked_of_the_device(
    make_model: MakeModel, source: Tensor, beam: int
) -> None:
    """Tensors on the meta device have no data: whoever wants to see some fails."""
    model, source = make_model(vocabulary_size=700).eval().to(META), source.to(META)
    constraints = [
        Constraints(torch.tensor([0, 2, 9]), torch.tensor([0, 3, 2]), no_repeat_ngram=2)
        for _ in range(2)
    ]
    scale = divisors(10, 1.0)
    search = _Search(model, source, constraints[0], beam, scale, n_best=beam, padded=None)
    drawing = _Drawing(model, source, constraints[1], [1, 2, 3], beam, scale, padded=None)
    with torch.inference_mode(), NothingFromTheHost():
        for _ in range(10):
            search.advance(look=False)
            drawing.advance(0.7, top_k=5, top_p=0.9, look=False)
    assert search.tokens.shape == (3, beam, 11)
    assert drawing.tokens.shape == (3 * beam, 1, 11)
    with pytest.raises((NotImplementedError, RuntimeError)):
        search.advance(look=True)


def endless(make_model: MakeModel) -> Transformer:
    """A model that does not end before it has to."""
    model = make_model().eval()
    with torch.no_grad():
        model.embedding.weight[2] = 0
        model.embedding.weight[3:] *= 3
    return model


def test_a_beam_of_1_copies_no_cache(make_model: MakeModel, source: Tensor, calls: Calls) -> None:
    model, limits = endless(make_model), torch.full((3,), 11)

    def copies(function: Callable[[], object]) -> int:
        counted = calls(function)
        return counted["aten::index_select"] - counted["aten::embedding"]  # which are some, too

    layers = model.config.decoder_layers
    at_the_end = 2 * layers + 1  # all leave: memories, caches and the mask
    assert copies(lambda: beam_search(model, source, Constraints(limits), 1)) == at_the_end
    reordered = 11 * layers  # after each token before
    assert (
        copies(lambda: beam_search(model, source, Constraints(limits), 2)) == at_the_end + reordered
    )
    of_draws = layers + 1  # at the start, memories and the mask
    assert (
        copies(lambda: sample(model, source, Constraints(limits), [1, 2, 3], top_k=1))
        == at_the_end + of_draws
    )


def test_a_look_is_all_that_asks(
    make_model: MakeModel, source: Tensor, calls: Calls, look_every: LookEvery
) -> None:
    model, limits = endless(make_model), torch.full((3,), 15)

    def asked(every: int) -> int:
        look_every(every)
        counted = calls(
            lambda: beam_search(model, source, Constraints(limits), 2, n_best=2, padded=True)
        )
        return counted["aten::nonzero"]

    assert asked(1) == 16 + 1  # who leaves at the end, and who stays
    assert asked(TOKENS_PER_LOOK) == 2 + 1


@pytest.mark.parametrize("beam", [1, 4])
def test_search_and_sampling_compute_in_bfloat16_where_asked_to(
    make_model: MakeModel, beam: int
) -> None:
    model = make_model(vocabulary_size=700, feed_forward=1100, norm="pre").eval()
    source = torch.randint(3, 700, (5, 8))
    source[2, 5:] = 0

    def both() -> list[list[list[Hypothesis]]]:
        limits = torch.tensor([9, 0, 5, 9, 12])
        constraints = [Constraints(limits, torch.full((5,), 3), 2) for _ in range(2)]
        return [
            beam_search(model, source, constraints[0], beam, n_best=beam),
            sample(model, source, constraints[1], range(5), draws=3),
        ]

    with torch.autocast("cpu", torch.bfloat16):
        rounded = both()
        state = model.start(source)
        model.step(source[:, :1], state)
    assert {cache.key_value.dtype for cache in state.caches} == {torch.bfloat16}
    for found, exact in zip(rounded, both(), strict=True):
        assert [len(each) for each in found] == [len(each) for each in exact]
        assert found != exact
    # What is found is about as likely.
    for mine, theirs in zip(rounded[0], both()[0], strict=True):
        assert mine[0].score == pytest.approx(theirs[0].score, abs=0.05)
