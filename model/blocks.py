"""Encoder and decoder layers (section 3.1): sub-layers, each inside a residual with a norm.

Shapes: B batch, S source length, T target length, D model width, W hypotheses per sentence.
"""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

from model.attention import CrossAttention, SelfAttention, initialize
from model.config import TransformerConfig
from model.functional import dropout_add


class Residual(nn.Module):
    """ "Add & Norm" around a sub-layer, with dropout on the sub-layer's output (section 5.4)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.pre = config.norm == "pre"
        self.norm = nn.LayerNorm(config.width)

    def forward(self, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """Post-norm, as published: norm(x + sublayer(x)). Pre-norm: x + sublayer(norm(x))."""
        update = sublayer(self.norm(x) if self.pre else x)
        x = dropout_add(x, update, self.dropout, self.training)
        return x if self.pre else self.norm(x)


class FeedForward(nn.Module):
    """max(0, x W₁ + b₁) W₂ + b₂, at each position alike: equation 2. [B, T, D] → [B, T, D]."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.inner = nn.Linear(config.width, config.feed_forward)
        self.outer = nn.Linear(config.feed_forward, config.width)
        initialize(self.inner)
        initialize(self.outer)

    def forward(self, x: Tensor) -> Tensor:
        # In place: the backward pass needs only what comes out of the ReLU.
        return self.outer(functional.relu(self.inner(x), inplace=True))


class EncoderLayer(nn.Module):
    """Self-attention, then feed-forward."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.self_attention = SelfAttention(config.width, config.heads, config.attention_dropout)
        self.feed_forward = FeedForward(config)
        self.residuals = nn.ModuleList(Residual(config) for _ in range(2))

    def forward(self, x: Tensor, visible: Tensor | None) -> Tensor:
        """[B, S, D] → [B, S, D]; `visible` [B, 1, 1, S] is False at padding."""
        around_attention, around_feed_forward = self.residuals
        x = around_attention(x, lambda x: self.self_attention(x, visible))
        return around_feed_forward(x, self.feed_forward)


class DecoderLayer(nn.Module):
    """Masked self-attention, then cross-attention, then feed-forward."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.self_attention = SelfAttention(config.width, config.heads, config.attention_dropout)
        self.cross_attention = CrossAttention(config.width, config.heads, config.attention_dropout)
        self.feed_forward = FeedForward(config)
        self.residuals = nn.ModuleList(Residual(config) for _ in range(3))

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        visible: Tensor | None,
        weights: list[Tensor] | None = None,
    ) -> Tensor:
        """[B, T, D], memory [B, S, D] → [B, T, D]; the rest as in `CrossAttention.forward`.

        Padding in the target needs no mask: it comes last, so that the causal mask hides it from
        every real token.
        """
        memory_key_value = self.cross_attention.key_value(memory)
        attend_to_past = lambda x: self.self_attention(x, causal=True)  # noqa: E731
        return self._sublayers(x, attend_to_past, memory_key_value, visible, weights)

    def step(
        self, x: Tensor, past: Tensor | None, memory_key_value: Tensor, visible: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The newest token of each hypothesis, [B, W, D] → [B, W, D]; see `SelfAttention.step`."""

        def attend_to_past(x: Tensor) -> Tensor:
            nonlocal past
            x, past = self.self_attention.step(x, past)
            return x

        x = self._sublayers(x, attend_to_past, memory_key_value, visible, None)
        assert past is not None
        return x, past

    def _sublayers(
        self,
        x: Tensor,
        attend_to_past: Callable[[Tensor], Tensor],
        memory_key_value: Tensor,
        visible: Tensor | None,
        weights: list[Tensor] | None,
    ) -> Tensor:
        around_self_attention, around_cross_attention, around_feed_forward = self.residuals
        x = around_self_attention(x, attend_to_past)
        x = around_cross_attention(
            x, lambda x: self.cross_attention(x, memory_key_value, visible, weights)
        )
        return around_feed_forward(x, self.feed_forward)
