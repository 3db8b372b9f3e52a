"""Training: Ray Train places the workers, restarts them after a failure, and feeds them batches."""

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import ray
import ray.data
from ray.data import Dataset
from ray.train import (
    DataConfig,
    FailureConfig,
    LoggingConfig,
    Result,
    RunConfig,
    ScalingConfig,
    TrainingFailedError,
    UserCallback,
)
from ray.train.torch import TorchTrainer

from pipeline import recipe
from pipeline.errors import JobStopped
from pipeline.events import log_event
from pipeline.loop import training_loop
from pipeline.mixture import Mixture
from pipeline.placement import Placement
from pipeline.plan import TrainingPlan
from pipeline.stream import step_stream, stream_options
from pipeline.training_state import TrainingState

SECONDS_TO_STOP = 8.0
"""After an interrupt, for a last checkpoint."""


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
    if plan.is_finished(state):
        return state
    loop = partial(training_loop, plan, board)
    fit = make_trainer(plan, placement, cluster, loop, [_Reporter(plan, cluster, board)]).fit
    try:
        outcome = _interruptible(fit, board).return_value
    except TrainingFailedError:
        if (failure := ray.get(board.failure.remote())) is not None:
            raise JobStopped(failure) from None
        raise
    if outcome["interrupted"]:
        raise KeyboardInterrupt
    return TrainingState.from_json(outcome["state"])


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
        board.want_stop.remote()
        if not ended.wait(SECONDS_TO_STOP):
            raise  # a long validation, or workers that were just being started
    if isinstance(results[0], BaseException):
        raise results[0]
    return results[0]


class _Reporter(UserCallback):  # type: ignore[misc]
    """Says what happened at each failure of the workers; lives in Ray Train's controller."""

    def __init__(self, plan: TrainingPlan, cluster: recipe.Cluster, board: Any) -> None:
        self._plan, self._max_failures, self._board = plan, cluster.max_failures, board
        self._failures = 0

    # Ray Train passes both by name.
    def after_exception(
        self,
        run_context: Any,  # noqa: ARG002
        worker_exceptions: dict[int, Exception],
    ) -> None:
        self._failures += 1
        step = self._plan.checkpoints.newest_state().step
        errors = "; ".join(
            f"rank {rank}: {(str(error).strip() or repr(error)).splitlines()[-1][:200]}"
            for rank, error in sorted(worker_exceptions.items())
        )
        message = (
            f"workers failed, {self._failures} of at most {self._max_failures} times ({errors}); "
            f"training goes on from the checkpoint of step {step}"
        )
        if self._failures > self._max_failures:
            message = f"workers failed too often ({errors}); the last checkpoint is of step {step}"
        self._board.say.remote(message)
        log_event(self._plan.events, self._plan.run_id, "failure", step, message)


def make_trainer(
    plan: TrainingPlan,
    placement: Placement,
    cluster: recipe.Cluster,
    loop: Callable[[], Any],
    callbacks: Sequence[UserCallback] = (),
) -> TorchTrainer:
    """Ray Train set up for the plan; `loop` is what each worker runs."""
    gpu = {"GPU": 1} if placement.use_gpu else {}
    elastic = cluster.min_workers is not None and cluster.min_workers < placement.workers
    return TorchTrainer(
        loop,
        scaling_config=ScalingConfig(
            num_workers=(cluster.min_workers, placement.workers) if elastic else placement.workers,
            use_gpu=placement.use_gpu,
            resources_per_worker={"CPU": placement.cpus_per_worker} | gpu,
        ),
        run_config=RunConfig(
            # Ray Train would resume a run of the same name by itself; ours resumes by its own
            # checkpoints, so each start is a new run to Ray.
            name=f"attempt-{time.time_ns()}",
            storage_path=f"{plan.folder}/ray",
            failure_config=FailureConfig(
                max_failures=cluster.max_failures,
                controller_failure_limit=3,
                preemption_grace_s=cluster.preemption_grace_s,
            ),
            logging_config=LoggingConfig("ERROR"),
            callbacks=list(callbacks),
        ),
        datasets={"steps": partial(ray.data.range, 1)},  # `_StepShards` puts the stream there
        dataset_config=_StepShards(plan),
    )


class _StepShards(DataConfig):  # type: ignore[misc]
    """Gives the workers their stream at each start: for as many as there are, from where the newest
    checkpoint stands."""

    def __init__(self, plan: TrainingPlan) -> None:
        # Which node a batch lies on must not decide who gets it.
        super().__init__(
            execution_options=stream_options(plan.batches), enable_shard_locality=False
        )
        self._plan = plan

    def configure(
        self, datasets: dict[str, Any], world_size: int, *arguments: Any, **others: Any
    ) -> list[dict[str, Any]]:
        steps = {name: _remaining_steps(self._plan, world_size) for name in datasets}
        shards = super().configure(steps, world_size, *arguments, **others)
        return cast(list[dict[str, Any]], shards)


def _remaining_steps(plan: TrainingPlan, world_size: int) -> Dataset:
    state = plan.checkpoints.newest_state()
    return step_stream(
        Mixture.load(plan.corpora),
        plan.tokenizer,
        plan.batches,
        plan.augment,
        seed=plan.seed,
        epochs=plan.train.epochs,
        world_size=world_size,
        start=state.position,
        max_steps=plan.train.steps - state.step if plan.train.steps is not None else None,
    )
