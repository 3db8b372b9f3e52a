"""What all ranks must decide together, asked without waiting.

A rank that stopped, or took a checkpoint, by itself would leave the others waiting in their next
synchronisation. So every rank puts its answers into a sum over all ranks which is on its way while
the next step is computed, and all act on it after that step.
"""

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist


class Ballot:
    """Yes-or-no questions to all ranks, answered one step later.

    Args:
        questions: this rank's answers; they must not wait.
    """

    def __init__(self, questions: Sequence[Callable[[], bool]]) -> None:
        self._questions = questions
        # On CPUs and of its own, so that it neither waits for a GPU nor meets DDP's messages.
        self._group = dist.new_group(backend="gloo")
        self._votes: torch.Tensor | None = None
        self._counting: dist.Work | None = None

    def decide(self) -> list[bool]:
        """For each question whether any rank said yes when this was last called; all ranks get the
        same. To be called by every rank, once a step."""
        decided = [False] * len(self._questions)
        if self._counting is not None and self._votes is not None:
            self._counting.wait()
            decided = [bool(votes) for votes in self._votes.tolist()]
        self._votes = torch.tensor([int(question()) for question in self._questions])
        self._counting = dist.all_reduce(self._votes, group=self._group, async_op=True)
        return decided
