"""What steps came to, read some time after they were taken: at none of them is a GPU waited for.

Loss and norm stay on the device until a report or a checkpoint needs them; on a CPU they are there
at once. Whether a step was skipped follows from its norm, alike on all ranks.
"""

import math
from dataclasses import dataclass, replace

import torch

from heliograph.pipeline.checkpoints.training_state import Meter, TrainingState
from heliograph.pipeline.request.errors import JobStopped
from heliograph.pipeline.steps.batches import Step


@dataclass(frozen=True)
class Taken:
    """A step that was taken, but perhaps not computed yet."""

    step: int
    target_tokens: int
    loss: torch.Tensor
    norm: torch.Tensor
    data: str
    """In words, for messages."""


class Tally:
    """The steps since it was last read.

    Args:
        max_skipped: in a row; one more ends the job.
    """

    def __init__(self, max_skipped: int) -> None:
        self._max_skipped = max_skipped
        self._unread: list[Taken] = []
        self.norm = math.nan
        """Of the gradient of the last step that was read."""

    def add(self, number: int, step: Step, loss: torch.Tensor, norm: torch.Tensor) -> None:
        """Without a look at what is in the tensors."""
        data = f"{step.position} with {step.described()}"
        self._unread.append(Taken(number, step.target_tokens, loss, norm, data))

    def read(self, meter: Meter, state: TrainingState) -> TrainingState:
        """Add them to the meter; the state, which counts skipped steps in a row.

        Raises:
            JobStopped: too many of them changed nothing. On all ranks alike.
        """
        if not self._unread:
            return state
        found = torch.stack([torch.stack([each.loss, each.norm]) for each in self._unread])
        for taken, (loss, norm) in zip(self._unread, found.tolist(), strict=True):
            self.norm = norm
            skipped = 0 if math.isfinite(norm) else state.skipped_in_a_row + 1
            state = replace(state, skipped_in_a_row=skipped)
            if not skipped:
                meter.loss += loss
                meter.target_tokens += taken.target_tokens
                continue
            meter.skipped += 1
            if skipped > self._max_skipped:
                raise JobStopped(
                    f"the gradient of step {taken.step} is {norm}, and {skipped} steps in a row "
                    f"changed nothing; this one is {taken.data}. Lower train.learning_rate, raise "
                    "train.warmup_steps, or look at these pairs"
                )
        self._unread.clear()
        return state
