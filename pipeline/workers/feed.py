"""What the workers are fed: their share of the steps that remain, from each start anew."""

from typing import Any, cast

from ray.data import Dataset
from ray.train import DataConfig

from heliograph.pipeline.cluster.start import has_room_beside
from heliograph.pipeline.corpus.mixture import Mixture
from heliograph.pipeline.request.placement import Placement
from heliograph.pipeline.steps.stream import step_stream, stream_options
from heliograph.pipeline.training.plan import TrainingPlan


class StepShards(DataConfig):  # type: ignore[misc]  # Ray has no types
    """Gives the workers their stream at each start: for as many as there are, from where the newest
    checkpoint stands."""

    def __init__(self, plan: TrainingPlan, placement: Placement) -> None:
        # Which node a batch lies on must not decide who gets it.
        super().__init__(
            execution_options=stream_options(placement.data_labels),
            enable_shard_locality=False,
        )
        self._plan, self._cpus_per_worker = plan, placement.cpus_per_worker

    def configure(
        self,
        datasets: dict[str, Any],
        world_size: int,
        worker_handles: list[Any] | None,
        worker_node_ids: list[str] | None,
        **others: Any,
    ) -> list[dict[str, Any]]:
        # Where the workers left no whole CPU, as they may after a node was lost, tasks that asked
        # for one would wait for ever.
        room = has_room_beside(worker_node_ids or [], self._cpus_per_worker)
        stream = _remaining_steps(self._plan, world_size, cpus_per_task=1.0 if room else 0.0)
        steps = dict.fromkeys(datasets, stream)
        shards = super().configure(steps, world_size, worker_handles, worker_node_ids, **others)
        return cast(list[dict[str, Any]], shards)


def _remaining_steps(plan: TrainingPlan, world_size: int, cpus_per_task: float) -> Dataset:
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
        cpus_per_task=cpus_per_task,
    )
