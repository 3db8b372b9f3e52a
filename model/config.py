"""What a Transformer is built from: sizes, rates, special tokens."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TransformerConfig:
    """Sections 3 and 5.4; the defaults are the paper's base model. `dataclasses.asdict` is JSON.

    Attributes:
        vocabulary_size: tokens of both sides together, special ones included.
        width: d_model; even, since positions come in pairs of sine and cosine.
        heads: h; each is width / heads wide.
        feed_forward: d_ff, the inner width of the position-wise networks.
        dropout: on each sub-layer's output.
        attention_dropout: on the attention weights.
        embedding_dropout: on the sum of embeddings and positions.
        norm: "post", after the residual sum as published; "pre", inside the residual branch, with
            one more norm at the end of each stack.

    Raises:
        ValueError: a size or rate is out of range, or the special tokens clash.
    """

    vocabulary_size: int
    width: int = 512
    heads: int = 8
    encoder_layers: int = 6
    decoder_layers: int = 6
    feed_forward: int = 2048
    dropout: float = 0.1
    attention_dropout: float = 0.1
    embedding_dropout: float = 0.1
    norm: Literal["post", "pre"] = "post"
    pad_id: int = 0
    start_id: int = 1
    end_id: int = 2

    def __post_init__(self) -> None:
        for name in ("width", "heads", "encoder_layers", "decoder_layers", "feed_forward"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.width % 2 or self.width % self.heads:
            raise ValueError(
                f"width {self.width} must be even and a multiple of heads {self.heads}"
            )
        for name in ("dropout", "attention_dropout", "embedding_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must be in [0, 1), not {getattr(self, name)}")
        if self.norm not in ("post", "pre"):
            raise ValueError(f"norm must be 'post' or 'pre', not {self.norm!r}")
        special = {self.pad_id, self.start_id, self.end_id}
        if len(special) < 3 or min(special) < 0 or max(special) >= self.vocabulary_size:
            raise ValueError(
                f"pad_id {self.pad_id}, start_id {self.start_id} and end_id {self.end_id} must be "
                f"three different tokens of a vocabulary of {self.vocabulary_size}"
            )
