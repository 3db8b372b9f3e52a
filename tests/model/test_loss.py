"""The loss against closed forms in plain Python, and its hand-written gradient against autograd."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from model import SmoothedLoss, Transformer

MakeModel = Callable[..., Transformer]


def closed_form(logits: Tensor, target_out: Tensor, smoothing: float) -> tuple[float, int]:
    """Cross entropy with the distribution (1 - ε) · one-hot + ε / V, summed over real tokens."""
    loss, tokens = 0.0, 0
    for row, correct in zip(
        logits.flatten(0, 1).tolist(), target_out.flatten().tolist(), strict=True
    ):
        if correct == 0:
            continue
        tokens += 1
        log_normalizer = math.log(math.fsum(math.exp(score) for score in row))
        for token, score in enumerate(row):
            share = smoothing / len(row) + (1 - smoothing) * (token == correct)
            loss -= share * (score - log_normalizer)
    return loss, tokens


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_is_the_closed_form(
    make_model: MakeModel, source: Tensor, target: Tensor, target_out: Tensor, smoothing: float
) -> None:
    model = make_model()
    loss, tokens = SmoothedLoss(model, smoothing)(source, target, target_out)
    expected = closed_form(model(source, target), target_out, smoothing)
    assert loss.item() == pytest.approx(expected[0], rel=1e-5)
    assert tokens.item() == expected[1]
    assert tokens.dtype == torch.int64


def test_uniform_predictions_cost_the_logarithm_of_the_vocabulary(
    make_model: MakeModel, source: Tensor, target: Tensor, target_out: Tensor
) -> None:
    model = make_model()
    with torch.no_grad():
        model.embedding.weight.zero_()
    loss, tokens = SmoothedLoss(model, 0.1)(source, target, target_out)
    assert loss.item() == pytest.approx(11 * math.log(23), rel=1e-6)
    assert tokens.item() == 11


def test_a_batch_of_nothing_but_padding_costs_nothing(make_model: MakeModel) -> None:
    model = make_model()
    nothing = torch.zeros(2, 3, dtype=torch.int64)
    loss, tokens = SmoothedLoss(model, 0.1)(nothing, nothing, nothing)
    loss.backward()
    assert (loss.item(), tokens.item()) == (0.0, 0)
    assert all(not p.grad.any() for p in model.parameters() if p.grad is not None)


def test_smoothing_is_a_share(make_model: MakeModel) -> None:
    with pytest.raises(ValueError, match="smoothing"):
        SmoothedLoss(make_model(), 1.0)
