"""Training that stops at a step until it is let go on, so that something can happen to it there.

`python -m tests.held_job PLAN` trains by a pickled plan on the cluster that RAY_ADDRESS names.
"""

import pickle
import sys
import time
from pathlib import Path
from typing import Any

import ray

import heliograph.pipeline.training.loop
import heliograph.pipeline.workers.train
from heliograph.pipeline.cluster.start import capacity, start_ray
from heliograph.pipeline.request.placement import place
from heliograph.pipeline.request.recipe import Cluster
from heliograph.pipeline.runs.progress import ProgressLine, open_board
from heliograph.pipeline.steps.batches import Step
from heliograph.pipeline.training.plan import TrainingPlan
from tests.recorded_job import RecordedWorker, folder_of

HOLD = "hold"


class HeldWorker(RecordedWorker):
    """A recording worker that says on which node it is, and does not go past the held step."""

    def __init__(self, plan: TrainingPlan, board: Any) -> None:
        super().__init__(plan, board)
        node = ray.get_runtime_context().get_node_id()
        (folder_of(plan.folder) / f"{time.time_ns()}-{self.rank}.node").write_text(node)

    def take(self, step: Step, wait: float) -> None:
        while self.state.step >= held_step(self.plan.folder):
            time.sleep(0.05)
        super().take(step, wait)


def held_loop(plan: TrainingPlan, board: Any) -> str:
    """`training_loop` with workers that can be held."""
    heliograph.pipeline.training.loop.Worker = HeldWorker  # type: ignore[misc]  # this process does nothing else
    return heliograph.pipeline.training.loop.training_loop(plan, board)


def hold(job_folder: str, step: float) -> None:
    """No worker goes past this step from now on."""
    folder_of(job_folder).mkdir(parents=True, exist_ok=True)
    path = folder_of(job_folder) / HOLD
    path.with_suffix(".new").write_text(str(step))
    path.with_suffix(".new").rename(path)


def held_step(job_folder: str) -> float:
    return float((folder_of(job_folder) / HOLD).read_text())


def main(path: str) -> None:
    plan, cluster = pickle.loads(Path(path).read_bytes())
    assert isinstance(cluster, Cluster)
    start_ray()
    board = open_board()
    with ProgressLine(board):
        heliograph.pipeline.workers.train.train(plan, place(cluster, capacity()), cluster, board)
        time.sleep(1)  # for the last messages


if __name__ == "__main__":
    # By its importable name, which the workers know it by.
    from tests import held_job

    heliograph.pipeline.workers.train.training_loop = held_job.held_loop
    heliograph.pipeline.workers.train.SECONDS_BETWEEN_RESIZES = 2.0
    main(sys.argv[1])
