"""The model: encode, decode, forward, and one step at a time for search.

Shapes: B batch, S source length, T target length, D model width, L decoder layers, H heads,
V vocabulary, W hypotheses per sentence.

Sequences are padded on the right with `config.pad_id`; the masks are derived from it.
"""

from typing import cast

import torch
from torch import Tensor, nn

from heliograph.model.attention import KeyValueCache
from heliograph.model.blocks import DecoderLayer, EncoderLayer
from heliograph.model.config import TransformerConfig
from heliograph.model.functional import dropped, linear, visible_tokens


class DecoderState:
    """What decoding one more token needs, for B sentences of W hypotheses each.

    Attributes:
        memory_key_value: each layer's keys and values of the source, [B, S, 2 D], shared by a
            sentence's hypotheses.
        visible: [B, 1, 1, S], False at the source's padding; None: there is none.
        caches: each layer's keys and values of the tokens so far.
        length: tokens so far.
    """

    def __init__(self, memory_key_value: list[Tensor], visible: Tensor | None) -> None:
        self.memory_key_value = memory_key_value
        self.visible = visible
        self.caches = [KeyValueCache() for _ in memory_key_value]
        self.length = 0

    def keep_sentences(self, sentences: Tensor) -> None:
        """The sentences numbered so among the B stay; their hypotheses need `keep_hypotheses`."""
        self.memory_key_value = [x.index_select(0, sentences) for x in self.memory_key_value]
        if self.visible is not None:
            self.visible = self.visible.index_select(0, sentences)

    def keep_hypotheses(self, rows: Tensor) -> None:
        """Hypotheses become copies of those numbered `rows` among the B · W."""
        for cache in self.caches:
            cache.keep(rows)


class Transformer(nn.Module):
    """Encoder and decoder (figure 1); one matrix embeds source and target and scores the output."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary_size, config.width)
        # Scaled by √D on the way in, an embedding's elements have variance 1.
        nn.init.normal_(self.embedding.weight, std=config.width**-0.5)
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        final_norm = nn.LayerNorm if config.norm == "pre" else nn.Identity
        self.encoder_norm = final_norm(config.width)
        self.decoder_norm = final_norm(config.width)
        # No buffer: DDP would send it to all ranks at every step.
        self._positions = torch.empty(0, config.width)

    def compile_layers(self) -> None:
        """Have torch compile the layers: each by itself, so that all of a kind share what was
        compiled once (and once more for batches without padding, which need no mask), and gradients
        are sent while others are computed."""
        for layer in (*self.encoder, *self.decoder):
            layer.compile(dynamic=True)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """source [B, S], target [B, T] (ids, from the start token on) → logits [B, T, V]."""
        return self.decode(target, self.encode(source), source)

    def encode(self, source: Tensor, padded: bool | None = None) -> Tensor:
        """source [B, S] (ids) → memory [B, S, D]; `padded` as in `visible_tokens`."""
        visible = visible_tokens(source, self.config.pad_id, padded)
        x = self._embed(source)
        for layer in self.encoder:
            x = layer(x, visible)
        memory: Tensor = self.encoder_norm(x)
        return memory

    def decode(self, target: Tensor, memory: Tensor, source: Tensor) -> Tensor:
        """target [B, T], memory [B, S, D], source [B, S] (for its padding) → logits [B, T, V].

        Position t holds the scores of the token after target's t-th.
        """
        return self.project(self.decode_hidden(target, memory, source))

    def decode_hidden(
        self,
        target: Tensor,
        memory: Tensor,
        source: Tensor,
        weights: list[Tensor] | None = None,
        padded: bool | None = None,
    ) -> Tensor:
        """As `decode`, up to the output projection: [B, T, D].

        Where `weights` is given, each layer's cross-attention [B, H, T, S] is appended to it.
        `padded` is of the source, as in `visible_tokens`.
        """
        visible = visible_tokens(source, self.config.pad_id, padded)
        x = self._embed(target)
        for layer in self._decoder_layers():
            memory_key_value = layer.cross_attention.key_value(memory)
            x = layer(x, memory_key_value, visible, weights=weights)
        hidden: Tensor = self.decoder_norm(x)
        return hidden

    def project(self, hidden: Tensor) -> Tensor:
        """hidden […, D] → logits […, V], by the embeddings (section 3.4)."""
        return linear(hidden, self.embedding.weight)

    @torch.no_grad()
    def cross_attention(self, source: Tensor, target: Tensor) -> Tensor:
        """Where each target position looks in the source: weights [L, B, H, T, S].

        source [B, S], target [B, T] (ids, from the start token on). The weights are those before
        dropout; in training mode the rest of the model does drop.
        """
        weights: list[Tensor] = []
        self.decode_hidden(target, self.encode(source), source, weights)
        return torch.stack(weights)

    def start(self, source: Tensor, padded: bool | None = None) -> DecoderState:
        """Encode source [B, S] and prepare to decode it token by token; `padded` as in
        `visible_tokens`."""
        memory = self.encode(source, padded)
        memory_key_value = [
            layer.cross_attention.key_value(memory) for layer in self._decoder_layers()
        ]
        return DecoderState(memory_key_value, visible_tokens(source, self.config.pad_id, padded))

    def step(self, tokens: Tensor, state: DecoderState) -> Tensor:
        """Feed every hypothesis its newest token [B, W] → logits [B, W, V] of the one after it."""
        x = self._embed(tokens.reshape(-1, 1), start=state.length).view(*tokens.shape, -1)
        for layer, memory_key_value, cache in zip(
            self._decoder_layers(), state.memory_key_value, state.caches, strict=True
        ):
            x = layer(x, memory_key_value, state.visible, cache)
        state.length += 1
        return self.project(self.decoder_norm(x))

    def _decoder_layers(self) -> list[DecoderLayer]:
        return cast(list[DecoderLayer], list(self.decoder))

    def _embed(self, tokens: Tensor, start: int = 0) -> Tensor:
        """Ids [B, T] of positions `start`, `start` + 1, … → [B, T, D] (sections 3.4 and 3.5)."""
        positions = self._sinusoid(start, start + tokens.size(1), tokens.device)
        scaled = self.embedding(tokens) * self.config.width**0.5
        x = scaled + positions.to(self.embedding.weight.dtype)
        return dropped(x, self.config.embedding_dropout if self.training else 0.0)

    def _sinusoid(self, start: int, end: int, device: torch.device) -> Tensor:
        """Positions `start` to `end`, of a table that grows to powers of two."""
        table = self._positions
        if table.size(0) < end or table.device != device:
            with torch.inference_mode(False):  # training will read what search has made
                table = sinusoid(0, 1 << (end - 1).bit_length(), self.config.width, device)
                self._positions = table
        return table[start:end]


def sinusoid(start: int, length: int, width: int, device: torch.device) -> Tensor:
    """Positions `start`, `start` + 1, …, [length, width]: section 3.5, interleaved as published."""
    position = torch.arange(start, start + length, device=device, dtype=torch.float32)
    rate = 10000.0 ** (-torch.arange(0, width, 2, device=device, dtype=torch.float32) / width)
    angle = position[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)
