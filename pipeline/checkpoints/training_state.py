"""Where training stands: all that is neither a weight nor a moment, as JSON beside them."""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

from heliograph.pipeline.steps.windows import Position

if TYPE_CHECKING:  # whoever only reads a state need not load torch
    from heliograph.pipeline.steps.batches import MicroBatch


@dataclass(frozen=True)
class Validation:
    """What one validation measured. Loss in nats per target token."""

    step: int
    loss: float
    bleu: float
    chrf: float
    exact_match: float = 0.0
    """Percent of the sentences that were translated to the letter."""
    metric: str = "bleu"
    """By which of these it is decided which checkpoint is better: `validation.metric`."""

    @property
    def score(self) -> float:
        """By that metric, higher is better."""
        return -self.loss if self.metric == "loss" else float(getattr(self, self.metric))


@dataclass
class Meter:
    """Sums over the steps since it was last read, on this rank."""

    loss: float = 0.0
    target_tokens: int = 0
    positions: int = 0
    padding: int = 0
    too_many_tokens: int = 0
    """Pairs that were passed over because they exceed a micro-batch's budget."""
    skipped: int = 0
    """Steps that changed nothing. Their loss and their tokens are not counted."""
    seconds: float = 0.0
    wait: float = 0.0
    """Of `seconds`, those spent waiting for data."""

    def add_batches(self, micro_batches: "Iterable[MicroBatch]", pad_id: int) -> None:
        """Count positions and padding, on both sides."""
        for batch in micro_batches:
            for ids in (batch.source, batch.target_out):
                self.positions += ids.numel()
                self.padding += int((ids == pad_id).sum())

    def plus(self, other: "Meter") -> "Meter":
        return Meter(*(getattr(self, name) + getattr(other, name) for name in vars(self)))


@dataclass(frozen=True)
class TrainingState:
    """Where training stands after `step` optimizer steps.

    Neither the schedule nor a random state has a field of its own: the learning rate is a function
    of the step, and what is drawn at random (dropout on any device, other tokens for a text, the
    order of the pairs) is drawn from generators that are seeded anew from the seed and the step, or
    the pair, it is drawn for. No generator's state outlives a step, so there is none to keep.
    """

    step: int = 0
    position: Position = field(default_factory=Position)
    latest: Validation | None = None
    best: Validation | None = None
    validations_without_better: int = 0
    averaged: Validation | None = None
    """Of the mean of the last checkpoints, where that was better than the best of them."""
    skipped_in_a_row: int = 0
    """The last so many steps changed nothing, because their gradients were not finite."""
    total: Meter = field(default_factory=Meter)
    """Summed over the whole job, restarts included; what was lost in a failure is counted once."""

    def with_validation(self, latest: Validation) -> "TrainingState":
        """The state after a validation: the best one by its metric, and how long it has stood.
        Anything is better than what has no loss."""
        better = self.best is None or (
            math.isfinite(latest.loss)
            and (latest.score > self.best.score or not math.isfinite(self.best.loss))
        )
        return replace(
            self,
            latest=latest,
            best=latest if better else self.best,
            validations_without_better=0 if better else self.validations_without_better + 1,
        )

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "TrainingState":
        tree = json.loads(text)
        tree["position"] = Position(**tree["position"])
        tree["total"] = Meter(**tree["total"])
        for key in ("latest", "best", "averaged"):
            tree[key] = Validation(**tree[key]) if tree[key] else None
        return cls(**tree)
