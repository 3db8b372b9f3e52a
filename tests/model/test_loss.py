"""The loss against closed forms in plain Python, and its hand-written gradient against autograd."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from heliograph.model import SmoothedLoss, Transformer
from heliograph.model.loss import smoothed_cross_entropy

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


def random_problem(positions: int, vocabulary_size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """hidden [N, 6], weight [V, 6], correct [N] and real [N], in float64."""
    hidden = torch.randn(positions, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(vocabulary_size, 6, dtype=torch.float64, requires_grad=True)
    correct = torch.randint(0, vocabulary_size, (positions,))
    return hidden, weight, correct, torch.arange(positions) % 4 != 3


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gradient_by_finite_differences(smoothing: float) -> None:
    hidden, weight, correct, real = random_problem(9, 11)
    assert torch.autograd.gradcheck(
        lambda hidden, weight: (
            0.7 * smoothed_cross_entropy(hidden, weight, correct, real, smoothing)
        ),
        (hidden, weight),
    )


def test_several_chunks_equal_autograd_over_all_logits_at_once() -> None:
    hidden, weight, correct, real = random_problem(100, 100_000)  # chunks of 41 positions
    ours = torch.autograd.grad(
        smoothed_cross_entropy(hidden, weight, correct, real, 0.1), (hidden, weight)
    )
    theirs = torch.autograd.grad(
        torch.nn.functional.cross_entropy(
            (hidden @ weight.T)[real], correct[real], label_smoothing=0.1, reduction="sum"
        ),
        (hidden, weight),
    )
    torch.testing.assert_close(ours, theirs)


def test_without_gradients_only_the_loss_is_computed(
    make_model: MakeModel, source: Tensor, target: Tensor, target_out: Tensor
) -> None:
    loss = SmoothedLoss(make_model(), 0.1)
    with torch.no_grad():
        value, _ = loss(source, target, target_out)
    assert value.item() == loss(source, target, target_out)[0].item()
    assert not value.requires_grad


def test_no_probability_underflows() -> None:
    """A hopeless prediction costs what it costs, not infinity."""
    hidden, weight = torch.tensor([[1.0]]), torch.tensor([[0.0], [3e4], [-3e4]])
    loss = smoothed_cross_entropy(hidden, weight, torch.tensor([2]), torch.tensor([True]), 0.0)
    assert loss.item() == 6e4


def test_autocast_computes_products_in_bfloat16_and_the_rest_in_float32(
    make_model: MakeModel, source: Tensor, target: Tensor, target_out: Tensor
) -> None:
    model = make_model(dropout=0.01, attention_dropout=0.01, embedding_dropout=0.01)
    exact, _ = SmoothedLoss(model.eval(), 0.1)(source, target, target_out)
    for mode in (model.eval(), model.train()):
        with torch.autocast("cpu", torch.bfloat16):
            loss, _ = SmoothedLoss(mode, 0.1)(source, target, target_out)
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(exact.item(), rel=0.05)
        loss.backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())


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
