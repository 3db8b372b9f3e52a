"""Training: Ray Train places the workers, restarts them after a failure, and feeds them batches."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.train import ControllerError, Result, TrainingFailedError

from heliograph.pipeline.checkpoints.training_state import TrainingState
from heliograph.pipeline.request import recipe
from heliograph.pipeline.request.errors import JobStopped
from heliograph.pipeline.request.placement import Placement
from heliograph.pipeline.storage.fence import claim
from heliograph.pipeline.training.averaging import is_averaged
from heliograph.pipeline.training.loop import training_loop
from heliograph.pipeline.training.plan import TrainingPlan
from heliograph.pipeline.workers.reporter import Reporter
from heliograph.pipeline.workers.trainer import make_trainer

SECONDS_TO_START = 4.0
"""After an interrupt, for workers that are being started: there is nothing yet to save."""
SECONDS_TO_SAVE = 600.0
"""For workers that train, to end the step or validation they are in and to take a checkpoint; a
second interrupt does not wait for it."""


def train(
    plan: TrainingPlan, placement: Placement, cluster: recipe.Cluster, board: Any
) -> TrainingState:
    """Train to the end of the plan, from its newest checkpoint if it has one.

    Raises:
        JobStopped: training cannot go on.
        KeyboardInterrupt: the user stopped it; a checkpoint was taken if there was time.
        ray.train.TrainingFailedError: the workers failed more than `max_failures` times.
    """
    state = plan.checkpoints.newest_state()
    if plan.is_finished(state) and is_averaged(plan, state):
        return state
    loop = partial(training_loop, replace(plan, start=claim(plan.folder)), board)
    lost = 0
    while True:
        reporter = Reporter(plan, cluster, placement.cpus_per_worker, board)
        fit = make_trainer(plan, placement, cluster, loop, [reporter]).fit
        try:
            return TrainingState.from_json(_interruptible(fit, board).return_value)
        except TrainingFailedError as error:
            if (failure := ray.get(board.failure.remote())) is not None:
                raise JobStopped(failure) from None
            lost += 1
            if not _lost_at_its_start(error) or lost > cluster.max_failures:
                raise
            most = cluster.max_failures
            reporter.tell("failure", f"a worker died at its start, {lost} of at most {most} times")


def _lost_at_its_start(error: TrainingFailedError) -> bool:
    """Ray Train starts the workers again wherever one of them dies but in the moment in which they
    receive the loop: there it ends."""
    return isinstance(error, ControllerError) and isinstance(
        error.controller_failure, RayActorError
    )


def _interruptible(fit: Callable[[], Result], board: Any) -> Result:
    """The result of `fit`, which a KeyboardInterrupt asks to stop and then waits for.

    It runs in a thread, because in the main one Ray Train answers an interrupt itself: it kills the
    workers, and the process ends as if that were an error of its own.
    """
    results: list[Result | BaseException] = []
    ended = threading.Event()  # a join that was interrupted cannot be repeated in Python 3.11

    def run() -> None:
        try:
            results.append(fit())
        except BaseException as error:  # to be raised where it is waited for
            results.append(error)
        ended.set()

    threading.Thread(target=run, name="ray-train", daemon=True).start()
    try:
        ended.wait()
    except KeyboardInterrupt:
        board.say.remote("stopping with a checkpoint; interrupt again to leave without it")
        board.want_stop.remote()
        _wait_for_the_stop(ended, board)
        if not results or not isinstance(results[0], BaseException):
            raise
    if isinstance(results[0], BaseException):
        raise results[0]
    return results[0]


def _wait_for_the_stop(ended: threading.Event, board: Any) -> None:
    """Until it has come, cannot be expected, or all is saved and only Ray Train's own end is to
    come, which takes seconds and nothing depends on."""
    asked = time.monotonic()
    while not ended.wait(0.2):
        try:
            phase = ray.get(board.phase.remote(), timeout=SECONDS_TO_START)
        except Exception:  # Ray itself was told to end, too
            return
        limit = SECONDS_TO_START if phase == "starting" else SECONDS_TO_SAVE
        if phase == "stopped" or time.monotonic() - asked > limit:
            return
