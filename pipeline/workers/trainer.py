"""Ray Train set up for a plan."""

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import ray.data
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.callback import WorkerGroupCallback

from heliograph.pipeline.request import recipe
from heliograph.pipeline.request.placement import Placement, ray_address
from heliograph.pipeline.training.plan import TrainingPlan
from heliograph.pipeline.workers.feed import StepShards
from heliograph.pipeline.workers.whole_starts import WholeStarts

SECONDS_BETWEEN_RESIZES = 60.0
"""Of an elastic job; steps since the last checkpoint are taken again after each."""
ATTEMPTS_TO_PLACE = 60
"""Of a minute each, in which a lost node's workers find no room; then the job gives up."""


def make_trainer(
    plan: TrainingPlan,
    placement: Placement,
    cluster: recipe.Cluster,
    loop: Callable[[], Any],
    callbacks: Sequence[WorkerGroupCallback] = (),
) -> TorchTrainer:
    """Ray Train set up for the plan; `loop` is what each worker runs."""
    gpu = {"GPU": 1} if placement.use_gpu else {}
    elastic = cluster.min_workers is not None and cluster.min_workers < placement.workers
    if elastic:
        # Ray counts again every 20 seconds what a lost node has left; until then it tries in vain.
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "20")
    return Trainer(
        loop,
        scaling_config=ScalingConfig(
            num_workers=(cluster.min_workers, placement.workers) if elastic else placement.workers,
            use_gpu=placement.use_gpu,
            resources_per_worker={"CPU": placement.cpus_per_worker} | gpu,
            label_selector=dict(placement.labels) or None,
            elastic_resize_monitor_interval_s=SECONDS_BETWEEN_RESIZES,
        ),
        run_config=RunConfig(
            # Ray Train would resume a run of the same name by itself; ours resumes by its own
            # checkpoints, so each start is a new run to Ray.
            name=f"attempt-{time.time_ns()}",
            storage_path=f"{plan.folder}/ray",
            failure_config=FailureConfig(
                max_failures=cluster.max_failures,
                controller_failure_limit=ATTEMPTS_TO_PLACE,
                preemption_grace_s=cluster.preemption_grace_s,
            ),
            logging_config=LoggingConfig("ERROR"),
            callbacks=[WholeStarts(), *callbacks],
        ),
        datasets={"steps": partial(ray.data.range, 1)},  # `StepShards` puts the stream there
        dataset_config=StepShards(plan, placement),
    )


class Trainer(TorchTrainer):  # type: ignore[misc]  # Ray has no types
    """Without the process that frees the workers' places if the controller is killed, where Ray
    ends with this process anyway: it looks every second, and takes a hundredth of a core."""

    def _create_default_callbacks(self) -> list[Any]:
        alone = ray_address() is None
        return [
            each
            for each in super()._create_default_callbacks()
            if not (alone and isinstance(each, PlacementGroupCleanerCallback))
        ]
