"""The few operations that have their own form on a CPU, for speed. Devices are told apart here."""

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
        visible: bool, broadcasts to [B, H, T, S]; False hides a key. Every row must see some key.
        causal: query t sees keys 0 … t only; excludes `visible`.
        dropout: the share of weights set to zero, the rest scaled up.

    Returns:
        [B, H, T, K].
    """
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=visible, dropout_p=dropout, is_causal=causal
    )


def attention_weights(query: Tensor, key: Tensor, visible: Tensor | None = None) -> Tensor:
    """softmax(Q Kᵀ / √K) itself, without dropout: [B, H, T, K], [B, H, S, K] → [B, H, T, S]."""
    scores = query @ key.transpose(-2, -1) * query.size(-1) ** -0.5
    if visible is not None:
        scores = scores.masked_fill(~visible, -torch.inf)
    return torch.softmax(scores, dim=-1)


def dropout_add(residual: Tensor, update: Tensor, dropout: float, training: bool) -> Tensor:
    """residual + dropout(update), section 5.4."""
    return residual + functional.dropout(update, dropout, training)
