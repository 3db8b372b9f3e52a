"""A plain training step around torch.nn.Transformer: what benchmarks/train.py compares with."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from heliograph.model import TransformerConfig
from heliograph.model.transformer import sinusoid


class Batch(NamedTuple):
    """Padded ids on the CPU, [B, S] and twice [B, T], as the pipeline's micro-batches have them."""

    source: Tensor
    target_in: Tensor
    target_out: Tensor
    padded: bool
    """Whether any source is."""

    def to(self, device: torch.device) -> "Batch":
        return Batch(*(ids.to(device, non_blocking=True) for ids in self[:3]), self.padded)


Step = Callable[[Batch], None]
SMOOTHING, CLIP_NORM, LEARNING_RATE = 0.1, 1.0, 1e-4


class PlainTransformer(nn.Module):
    """What one writes around torch.nn.Transformer: tied embeddings, positions, masks."""

    def __init__(self, config: TransformerConfig, feed_forward_dropout: bool) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary_size, config.width)
        nn.init.normal_(self.embedding.weight, std=config.width**-0.5)
        self.dropout = nn.Dropout(config.embedding_dropout)
        self.transformer = nn.Transformer(
            config.width,
            config.heads,
            config.encoder_layers,
            config.decoder_layers,
            config.feed_forward,
            config.dropout,
            batch_first=True,
        )
        if not feed_forward_dropout:
            for layer in [*self.transformer.encoder.layers, *self.transformer.decoder.layers]:
                layer.dropout.p = 0.0

    def forward(self, source: Tensor, target: Tensor, padded: bool) -> Tensor:
        length = target.size(1)
        causal = torch.ones(length, length, dtype=torch.bool, device=target.device).triu(1)
        padding = source == self.config.pad_id if padded else None
        hidden = self.transformer(
            self._embed(source),
            self._embed(target),
            tgt_mask=causal,
            # None of the target: padding comes after what looks only back, and has no loss.
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
            tgt_is_causal=True,
        )
        return nn.functional.linear(hidden, self.embedding.weight)

    def _embed(self, tokens: Tensor) -> Tensor:
        width = self.config.width
        positions = sinusoid(0, tokens.size(1), width, tokens.device)
        return self.dropout(self.embedding(tokens) * math.sqrt(width) + positions)


def plain_step(config: TransformerConfig, device: torch.device, feed_forward_dropout: bool) -> Step:
    """The step of a plain loop."""
    model = PlainTransformer(config, feed_forward_dropout).to(device)
    criterion = nn.CrossEntropyLoss(label_smoothing=SMOOTHING, ignore_index=config.pad_id)
    optimizer = torch.optim.AdamW(
        model.parameters(), LEARNING_RATE, (0.9, 0.98), 1e-9, weight_decay=0.0, fused=True
    )

    def step(batch: Batch) -> None:
        source, target_in, target_out, padded = batch.to(device)
        optimizer.zero_grad()
        with autocast(device):
            logits = model(source, target_in, padded)
            loss = criterion(logits.view(-1, logits.size(-1)), target_out.view(-1))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()

    return step


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 on a GPU, nothing on a CPU."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
