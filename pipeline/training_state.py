"""Where training stands: all that is neither a weight nor a moment, as JSON beside them."""

import json
from dataclasses import asdict, dataclass, field, replace

from pipeline.step import Meter
from pipeline.windows import Position


@dataclass(frozen=True)
class Validation:
    """What one validation measured. Loss in nats per target token."""

    step: int
    loss: float
    bleu: float
    chrf: float


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
        """The state after a validation: the best one by BLEU, and how long it has stood."""
        better = self.best is None or latest.bleu > self.best.bleu
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
