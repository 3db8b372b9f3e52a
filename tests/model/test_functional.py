"""The CPU's own dropout, attention and matrix products do what torch's do."""

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from heliograph.model.functional import (
    add_dropped,
    attend,
    attention_weights,
    autocast_for,
    dropped,
    likeliest,
    linear,
    visible_tokens,
)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_zeroes_a_share_and_keeps_the_mean(rate: float) -> None:
    torch.manual_seed(1)
    x = torch.ones(1001, 1003)
    y = dropped(x, rate)
    # Four standard deviations of a binomial share over a million elements.
    deviation = 4 * (rate * (1 - rate) / x.numel()) ** 0.5
    assert (y == 0).float().mean().item() == pytest.approx(rate, abs=deviation + 2**-16)
    assert y.max().item() == pytest.approx(1 / (1 - rate), rel=2e-4)
    assert y.mean().item() == pytest.approx(1, abs=deviation / (1 - rate) + 2e-4)


def test_dropout_spares_no_position_and_couples_no_neighbours() -> None:
    """Four elements share a random number: each must be dropped as often, and on its own."""
    torch.manual_seed(1)
    gone = (dropped(torch.ones(250_000, 8), 0.3) == 0).float()
    torch.testing.assert_close(gone.mean(0), torch.full((8,), 0.3), rtol=0, atol=0.005)
    covariance = torch.cov(gone.T)
    assert (covariance - covariance.diag().diag()).abs().max().item() < 0.002


def test_dropout_follows_the_seed() -> None:
    x = torch.ones(100)
    torch.manual_seed(5)
    first, second = dropped(x, 0.5), dropped(x, 0.5)
    torch.manual_seed(5)
    assert torch.equal(dropped(x, 0.5), first)
    assert not torch.equal(first, second)


def test_no_dropout_changes_nothing() -> None:
    x, residual = torch.randn(2, 3, 4).unbind()
    assert torch.equal(dropped(x, 0.0), x)
    assert torch.equal(add_dropped(residual, x, 0.0), residual + x)


def test_gradient_passes_where_the_value_passed() -> None:
    residual = torch.zeros(50, 7, requires_grad=True)
    update = torch.ones(50, 7, requires_grad=True)
    output = add_dropped(residual, update, 0.4)
    output.sum().backward()
    torch.testing.assert_close(update.grad, output.detach())
    torch.testing.assert_close(residual.grad, torch.ones(50, 7))


def _query_key_value(targets: int, sources: int) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.randn(3, 2, targets, 8),
        torch.randn(3, 2, sources, 8),
        torch.randn(3, 2, sources, 8),
    )


def test_weights_are_those_that_attention_uses() -> None:
    query, key, value = _query_key_value(4, 4)
    visible = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]]).bool()[:, None, None]
    for options in ({}, {"visible": visible}, {"causal": True}):
        weights = attention_weights(query, key, **options)
        torch.testing.assert_close(weights @ value, attend(query, key, value, **options))


@pytest.mark.parametrize("causal", [False, True])
def test_attention_with_dropout_has_the_mean_of_attention_without(causal: bool) -> None:
    torch.manual_seed(1)
    query, key, value = _query_key_value(4, 4)
    visible = None if causal else torch.tensor([1, 1, 1, 0]).bool().expand(3, 1, 1, 4)
    draws = [attend(query, key, value, visible, causal, dropout=0.25) for _ in range(3000)]
    assert not torch.equal(draws[0], draws[1])
    mean = torch.stack(draws).mean(0)
    expected = functional.scaled_dot_product_attention(query, key, value, visible, 0.0, causal)
    torch.testing.assert_close(mean, expected, rtol=0, atol=0.08)


@pytest.mark.parametrize(("width", "outputs"), [(256, 300), (2048, 512), (1100, 64)])
@torch.no_grad()
def test_a_row_s_result_does_not_depend_on_other_rows(width: int, outputs: int) -> None:
    """To the last bit, where torch alone is off by rounding."""
    torch.manual_seed(1)
    x, weight, bias = torch.randn(600, width), torch.randn(outputs, width), torch.randn(outputs)
    together = linear(x, weight, bias)
    torch.testing.assert_close(together, functional.linear(x, weight, bias), rtol=1e-4, atol=1e-3)
    for rows in (1, 2, 3, 4, 5, 6, 7, 8, 13, 62, 65, 300):
        assert torch.equal(linear(x[:rows], weight, bias), together[:rows])
    assert linear(x[:6].view(2, 3, width), weight).shape == (2, 3, outputs)


@torch.no_grad()
def test_attention_of_a_row_does_not_depend_on_other_rows() -> None:
    query, key, value = (
        torch.randn(16, 2, 1, 64),
        torch.randn(16, 2, 7, 64),
        torch.randn(16, 2, 7, 64),
    )
    together = attend(query, key, value)
    torch.testing.assert_close(together, attention_weights(query, key) @ value)
    for rows in (1, 3, 15):
        assert torch.equal(attend(query[:rows], key[:rows], value[:rows]), together[:rows])


@pytest.mark.parametrize("size", [5, 640, 1280, 1301])
def test_the_likeliest_are_topk_s(size: int) -> None:
    torch.manual_seed(1)
    x = torch.randn(4, 3, size).masked_fill(torch.rand(4, 3, size) < 0.5, -torch.inf)
    x[0] = -torch.inf
    values, places = likeliest(x, 5)
    assert torch.equal(values, x.topk(5).values)
    assert torch.equal(x.gather(-1, places), values)
    assert all(len(set(row)) == 5 for row in places.flatten(0, 1).tolist())


def test_there_is_a_mask_where_there_may_be_padding() -> None:
    tokens = torch.tensor([[5, 2, 0], [0, 0, 0]])
    expected = torch.tensor([[1, 1, 0], [1, 0, 0]]).bool()[:, None, None]
    for padded in (None, True):
        assert torch.equal(visible_tokens(tokens, 0, padded), expected)
    assert visible_tokens(tokens, 9) is None
    assert visible_tokens(tokens, 9, padded=True).all()
    # Elsewhere than on a CPU nobody looks.
    tokens = tokens.to("meta")
    assert visible_tokens(tokens, 9).shape == (2, 1, 1, 3)
    assert visible_tokens(tokens, 9, padded=False) is None


@pytest.mark.parametrize("has_it", [False, True])
def test_auto_is_bfloat16_on_gpus_that_compute_with_it(
    monkeypatch: pytest.MonkeyPatch, has_it: bool
) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: has_it)
    assert (autocast_for("auto", gpu) is not nullcontext) == has_it
    assert autocast_for("auto", cpu) is autocast_for("float32", gpu) is nullcontext
    with autocast_for("bfloat16", cpu)():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
