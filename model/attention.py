"""Multi-head attention over fused projections (section 3.2.2), with the key-value cache of search.

Shapes: B batch, S source length, T target length, D model width, H heads, K head width (D / H),
W hypotheses of one sentence that search extends at once.
"""

import torch
from torch import Tensor, nn

from heliograph.model.functional import Linear, attend, attention_weights


class SelfAttention(nn.Module):
    """Queries, keys and values from the same sequence, by one matrix product."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query_key_value = Linear(width, 3 * width)
        self.output = Linear(width, width)
        initialize(self.query_key_value, parts=3)
        initialize(self.output)

    def forward(self, x: Tensor, visible: Tensor | None = None, causal: bool = False) -> Tensor:
        """[B, T, D] → [B, T, D]; `visible` [B, 1, 1, T] as in `attend`."""
        query, key, value = split(self.query_key_value(x), 3, self.heads)
        dropout = self.dropout if self.training else 0.0
        mixed: Tensor = self.output(merge(attend(query, key, value, visible, causal, dropout)))
        return mixed

    def step(self, x: Tensor, cache: "KeyValueCache") -> Tensor:
        """Attend from the newest token of each hypothesis to it and all before it.

        x [B, W, D] → [B, W, D]; the newest keys and values join those in `cache`.
        """
        width = x.size(-1)
        newest = self.query_key_value(x.reshape(-1, 1, width))
        query, key_value = newest.split([width, 2 * width], dim=-1)
        (query,) = split(query, 1, self.heads)
        key, value = split(cache.append(key_value), 2, self.heads)
        mixed: Tensor = self.output(merge(attend(query, key, value)).view_as(x))
        return mixed


class CrossAttention(nn.Module):
    """Queries from the target; keys and values from the memory, by one matrix product."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query = Linear(width, width)
        self.key_value = Linear(width, 2 * width)
        self.output = Linear(width, width)
        initialize(self.query)
        initialize(self.key_value, parts=2)
        initialize(self.output)

    def forward(
        self,
        x: Tensor,
        memory_key_value: Tensor,
        visible: Tensor | None,
        weights: list[Tensor] | None = None,
    ) -> Tensor:
        """Attend to the memory.

        Args:
            x: [B, T, D]; in search the T positions are a sentence's W hypotheses, so that keys and
                values are shared by them and never copied.
            memory_key_value: [B, S, 2 D], what `key_value` makes of the memory.
            visible: [B, 1, 1, S] as in `attend`.
            weights: where given, every head's weights [B, H, T, S] are appended to it.

        Returns:
            [B, T, D].
        """
        (query,) = split(self.query(x), 1, self.heads)
        key, value = split(memory_key_value, 2, self.heads)
        if weights is not None:
            weights.append(attention_weights(query, key, visible))
        dropout = self.dropout if self.training else 0.0
        mixed: Tensor = self.output(merge(attend(query, key, value, visible, dropout=dropout)))
        return mixed


class KeyValueCache:
    """A layer's keys and values of the tokens so far, [B · W, T, 2 D]."""

    def __init__(self) -> None:
        self.key_value: Tensor | None = None

    def append(self, newest: Tensor) -> Tensor:
        """Add a token's, [B · W, 1, 2 D], and return all."""
        past = self.key_value
        self.key_value = newest if past is None else torch.cat([past, newest], dim=1)
        return self.key_value

    def keep(self, rows: Tensor) -> None:
        """Hypotheses become copies of those numbered `rows` among the B · W."""
        if self.key_value is not None:
            self.key_value = self.key_value.index_select(0, rows)


def split(x: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
    """[B, T, parts · D] → that many views [B, H, T, K], without a copy."""
    batch, length, width = x.shape
    parted = x.view(batch, length, parts, heads, width // (parts * heads))
    return parted.permute(2, 0, 3, 1, 4).unbind(0)


def merge(x: Tensor) -> Tensor:
    """[B, H, T, K] → [B, T, D]."""
    return x.transpose(1, 2).flatten(2)


def initialize(linear: nn.Linear, parts: int = 1) -> None:
    """Xavier uniform for each of the projections fused into one; biases zero."""
    for weight in linear.weight.chunk(parts):
        nn.init.xavier_uniform_(weight)
    nn.init.zeros_(linear.bias)
