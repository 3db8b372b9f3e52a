"""The training loop that every rank runs."""

import time
from collections.abc import Iterator
from typing import Any

import ray

from heliograph.pipeline.checkpoints.checkpoint_store import StorageFull
from heliograph.pipeline.checkpoints.training_state import TrainingState
from heliograph.pipeline.request.errors import JobStopped
from heliograph.pipeline.steps.batches import Step
from heliograph.pipeline.training.ballot import Ballot
from heliograph.pipeline.training.plan import TrainingPlan
from heliograph.pipeline.training.worker import Worker


def training_loop(plan: TrainingPlan, board: Any) -> str:
    """What each worker runs; returns the state as JSON.

    What starting again would not mend is put on the board, where `Reporter` finds it and ends the
    job.
    """
    try:
        return train_to_the_end(plan, board).to_json()
    except (JobStopped, StorageFull) as error:
        ray.get(board.fail.remote(str(error)))
        raise


def train_to_the_end(plan: TrainingPlan, board: Any) -> TrainingState:
    """Take the steps that remain, or those until the user wants to stop."""
    with Worker(plan, board) as worker:
        ballot, saved_at_notice = Ballot([worker.stop_wanted, worker.is_announced_to_go]), False
        for step, wait in _timed(worker.steps):
            worker.take(step, wait)
            stop, going = ballot.decide()
            if stop:
                worker.agree_to_stop()
            if worker.due(plan.validation.every_steps):
                worker.validate()
            notice, saved_at_notice = going and not saved_at_notice, going
            if worker.due(*plan.checkpoint_intervals) or stop or notice:
                worker.save()
            if plan.is_finished(worker.state):
                break
            if stop:
                return worker.state
        worker.average()
        return worker.state


def _timed(steps: Iterator[Step]) -> Iterator[tuple[Step, float]]:
    """Each step with the seconds that were spent waiting for it."""
    while True:
        started = time.perf_counter()
        try:
            step = next(steps)
        except StopIteration:
            return
        yield step, time.perf_counter() - started
