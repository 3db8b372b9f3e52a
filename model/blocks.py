"""Encoder and decoder layers (section 3.1): sub-layers, each inside a residual with a norm.

Shapes: B batch, S source length, T target length, D model width, W hypotheses per sentence.
"""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from heliograph.model.attention import CrossAttention, KeyValueCache, SelfAttention, initialize
from heliograph.model.config import TransformerConfig
from heliograph.model.functional import Linear, add_dropped


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
        x = add_dropped(x, update, self.dropout if self.training else 0.0)
        output: Tensor = x if self.pre else self.norm(x)
        return output


class FeedForward(nn.Module):
    """max(0, x W₁ + b₁) W₂ + b₂, at each position alike: equation 2. [B, T, D] → [B, T, D]."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.inner = Linear(config.width, config.feed_forward)
        self.outer = Linear(config.feed_forward, config.width)
        initialize(self.inner)
        initialize(self.outer)

    def forward(self, x: Tensor) -> Tensor:
        # In place: the backward pass needs only what comes out of the ReLU.
        output: Tensor = self.outer(functional.relu(self.inner(x), inplace=True))
        return output


class EncoderLayer(nn.Module):
    """Self-attention, then feed-forward."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.self_attention = SelfAttention(config.width, config.heads, config.attention_dropout)
        self.feed_forward = FeedForward(config)
        self.around_self_attention = Residual(config)
        self.around_feed_forward = Residual(config)

    def forward(self, x: Tensor, visible: Tensor | None) -> Tensor:
        """[B, S, D] → [B, S, D]; `visible` [B, 1, 1, S] is False at padding."""
        x = self.around_self_attention(x, partial(self.self_attention, visible=visible))
        output: Tensor = self.around_feed_forward(x, self.feed_forward)
        return output


class DecoderLayer(nn.Module):
    """Masked self-attention, then cross-attention, then feed-forward."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.self_attention = SelfAttention(config.width, config.heads, config.attention_dropout)
        self.cross_attention = CrossAttention(config.width, config.heads, config.attention_dropout)
        self.feed_forward = FeedForward(config)
        self.around_self_attention = Residual(config)
        self.around_cross_attention = Residual(config)
        self.around_feed_forward = Residual(config)

    def forward(
        self,
        x: Tensor,
        memory_key_value: Tensor,
        visible: Tensor | None,
        cache: KeyValueCache | None = None,
        weights: list[Tensor] | None = None,
    ) -> Tensor:
        """Whole targets [B, T, D] → [B, T, D]; in search, the newest tokens [B, W, D] → [B, W, D].

        Padding in the target needs no mask: it comes last, so that the causal mask hides it from
        every real token.

        Args:
            x: what comes from the layer below.
            memory_key_value: [B, S, 2 D], `cross_attention.key_value` of the memory.
            visible: [B, 1, 1, S], False at the source's padding.
            cache: in search, the keys and values of the tokens before; the newest join them.
            weights: where given, the cross-attention's [B, H, T, S] are appended to it.
        """
        attend_to_past = (
            partial(self.self_attention, causal=True)
            if cache is None
            else partial(self.self_attention.step, cache=cache)
        )
        attend_to_source = partial(
            self.cross_attention,
            memory_key_value=memory_key_value,
            visible=visible,
            weights=weights,
        )
        x = self.around_self_attention(x, attend_to_past)
        x = self.around_cross_attention(x, attend_to_source)
        output: Tensor = self.around_feed_forward(x, self.feed_forward)
        return output
