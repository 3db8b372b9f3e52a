"""Dropout and attention, with forms of their own on a CPU, for speed.

On a GPU the fused kernels of torch are the fastest. On a CPU torch draws dropout's coins one float
at a time, which took a sixth of a training step, and leaves its fused attention kernel as soon as
attention weights are dropped. benchmarks/train.py shows what the difference makes.

Shapes: B batch, S source length, T target length, H heads, K head width, D model width.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    visible: Tensor | None = None,
    causal: bool = False,
    dropout: float = 0.0,
) -> Tensor:
    """softmax(Q Kᵀ / √K) V (equation 1), with dropout on the softmax.

    Args:
        query: [B, H, T, K].
        key: [B, H, S, K].
        value: [B, H, S, K].
        visible: bool, [B, 1, 1, S]; False hides a key. Every query must see some key.
        causal: query t sees keys 0 … t only; excludes `visible`.
        dropout: the share of weights set to zero, the rest scaled up.

    Returns:
        [B, H, T, K].
    """
    if dropout > 0.0 and query.device.type == "cpu":
        weights = attention_weights(query, key, visible, causal)
        return dropped(weights, dropout) @ value
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=visible, dropout_p=dropout, is_causal=causal
    )


def visible_tokens(tokens: Tensor, pad_id: int) -> Tensor | None:
    """What `attend` may see of padded ids [B, S]: [B, 1, 1, S], False at padding.

    A row's first token is always visible, so that a row of nothing but padding stays finite. None:
    there is no padding, and no mask to apply; on a GPU, where asking would wait for it, never None.
    """
    visible = tokens != pad_id
    if tokens.device.type == "cpu" and bool(visible.all()):
        return None
    visible[:, 0] = True
    return visible[:, None, None, :]


def attention_weights(
    query: Tensor, key: Tensor, visible: Tensor | None = None, causal: bool = False
) -> Tensor:
    """softmax(Q Kᵀ / √K) itself, without dropout, as in `attend`: [B, H, T, S]."""
    scores = query @ key.transpose(-2, -1) * query.size(-1) ** -0.5
    if causal:
        visible = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if visible is not None:
        scores = scores.masked_fill(~visible, -torch.inf)
    return torch.softmax(scores, dim=-1)


def dropped(x: Tensor, rate: float) -> Tensor:
    """Dropout: each element is zero with probability `rate`, else divided by 1 - `rate`."""
    if rate == 0.0 or x.device.type != "cpu":
        return functional.dropout(x, rate)
    return x * dropout_mask(x, rate)


def add_dropped(residual: Tensor, update: Tensor, rate: float) -> Tensor:
    """residual + dropout(update): section 5.4."""
    if rate == 0.0 or update.device.type != "cpu":
        return residual + functional.dropout(update, rate)
    return torch.addcmul(residual, update, dropout_mask(update, rate))


def dropout_mask(x: Tensor, rate: float) -> Tensor:
    """Like x: 0 with probability `rate`, rounded to a multiple of 2⁻¹⁶, else what keeps the mean.

    Each 64-bit random number serves four elements, which is seven times as fast as `bernoulli_`.
    """
    level = min(round(rate * 2**16), 2**16 - 1)
    random = torch.empty(math.ceil(x.numel() / 4), dtype=torch.int64).random_(-(2**63), None)
    random = random.view(torch.int16)[: x.numel()].view(x.shape)
    kept = torch.ge(
        random, level - 2**15, out=torch.empty_like(x, memory_format=torch.contiguous_format)
    )
    return kept.mul_(2**16 / (2**16 - level))
