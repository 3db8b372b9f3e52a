"""Training: Ray Train places the workers, restarts them after a failure, and feeds them batches."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from ray.data import Dataset
from ray.train import DataConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from pipeline.checkpoint import TrainingState
from pipeline.mixture import Mixture
from pipeline.placement import Placement
from pipeline.plan import TrainingPlan
from pipeline.stream import step_stream, stream_options
from pipeline.worker import training_loop


def train(plan: TrainingPlan, placement: Placement, max_failures: int, board: Any) -> TrainingState:
    """Train to the end of the plan, from its newest checkpoint if it has one.

    Raises:
        ray.train.TrainingFailedError: the workers failed more than `max_failures` times.
    """
    state = plan.checkpoints.newest_state()
    if plan.is_finished(state):
        return state
    loop = partial(training_loop, plan, board)
    result = make_trainer(plan, placement, max_failures, loop).fit()
    return TrainingState.from_json(result.return_value)


def make_trainer(
    plan: TrainingPlan, placement: Placement, max_failures: int, loop: Callable[[], Any]
) -> TorchTrainer:
    """Ray Train set up for the plan; `loop` is what each worker runs."""
    gpu = {"GPU": 1} if placement.use_gpu else {}
    return TorchTrainer(
        loop,
        scaling_config=ScalingConfig(
            num_workers=placement.workers,
            use_gpu=placement.use_gpu,
            resources_per_worker={"CPU": placement.cpus_per_worker} | gpu,
        ),
        run_config=RunConfig(
            # Ray Train would resume a run of the same name by itself; ours resumes by its own
            # checkpoints, so each start is a new run to Ray.
            name=f"attempt-{time.time_ns()}",
            storage_path=f"{plan.folder}/ray",
            failure_config=FailureConfig(max_failures=max_failures, controller_failure_limit=3),
            logging_config=LoggingConfig("ERROR"),
        ),
        # Called at each start of the workers: the stream begins where the newest checkpoint stands.
        datasets={"steps": partial(_remaining_steps, plan, placement.workers)},
        # Which node a batch lies on must not decide who gets it.
        dataset_config=DataConfig(
            execution_options=stream_options(plan.batches), enable_shard_locality=False
        ),
    )


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
