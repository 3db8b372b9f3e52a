"""Compiled layers compute what the layers do, whatever the shapes, compiled once for each kind, and
once more without padding."""

from collections.abc import Iterator
from itertools import product

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from heliograph.model import SmoothedLoss, Transformer, TransformerConfig


@pytest.fixture(autouse=True)
def compiled_for_this_test() -> Iterator[None]:
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


def loss_of(compiled: bool, dropout: float = 0.0) -> SmoothedLoss:
    torch.manual_seed(1)
    config = TransformerConfig(60, 16, 2, 2, 2, 32, dropout, dropout, embedding_dropout=dropout)
    model = Transformer(config)
    if compiled:
        model.compile_layers()
    return SmoothedLoss(model, 0.1)


def batch(
    rows: int, source: int, target: int, padded: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(rows * source + target)
    sizes = (rows, source), (rows, target), (rows, target)
    ids = [torch.randint(3, 60, size, generator=draw) for size in sizes]
    if padded:
        ids[0][0, source - 2 :] = 0
    return ids[0], ids[1], ids[2]


SHAPES = [(5, 9, 7), (4, 8, 6), (12, 17, 21), (2, 40, 33), (30, 5, 4), (7, 7, 7), (3, 100, 90)]


def test_loss_and_gradients_are_those_of_the_layers_at_any_shape() -> None:
    plain, compiled = loss_of(compiled=False), loss_of(compiled=True)
    graphs = []
    for shape, padded in product(SHAPES, (True, False)):
        for each in (plain, compiled):
            each.zero_grad()
            each(*batch(*shape, padded))[0].backward()
        for one, other in zip(plain.parameters(), compiled.parameters(), strict=True):
            torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-5)
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] == 2, "one for each kind of layer"
    assert graphs[1] == 4, "and one more where there is no mask"
    assert graphs[1] == graphs[-1], "new shapes are compiled anew"
    assert not counters["graph_break"]


@pytest.mark.faults
def test_what_is_dropped_depends_on_the_seed_alone() -> None:
    """A step that is taken again, as after a restart, drops the same."""
    compiled = loss_of(compiled=True, dropout=0.3)

    def loss(seed: int) -> float:
        torch.manual_seed(seed)
        return float(compiled(*batch(6, 8, 9))[0].detach())

    losses = [loss(seed) for seed in (1, 2, 3, 1, 2, 3)]
    assert losses[:3] == losses[3:]
    assert len(set(losses)) == 3
    without = float(loss_of(compiled=False)(*batch(6, 8, 9))[0].detach())
    assert without not in losses
    mean = sum(loss(seed) for seed in range(40)) / 40
    assert mean == pytest.approx(without, rel=0.1)


def test_a_model_that_is_used_is_never_compiled() -> None:
    """To the last bit, at the stance in which training validates."""
    plain, compiled = loss_of(compiled=False), loss_of(compiled=True)
    source = batch(6, 8, 9)[0]
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        found = compiled.model.eval().encode(source)
        assert torch.equal(found, plain.model.eval().encode(source))
    assert not counters["stats"]["unique_graphs"]
