"""Training whose workers write down what each step took and left, for comparison with another run.

`python -m tests.recorded_job …` is `heliograph train …` with these workers.
"""

import hashlib
import json
import os
import time
from itertools import chain
from pathlib import Path
from typing import Any

from torch import Tensor

import heliograph.pipeline.training.loop
import heliograph.pipeline.workers.train
from heliograph.jobs.command import run_alone
from heliograph.jobs.train import train
from heliograph.pipeline.steps.batches import Step
from heliograph.pipeline.training.plan import TrainingPlan
from heliograph.pipeline.training.worker import Worker

Records = dict[int, list[dict[str, Any]]]
"""By step: what each rank saw of it, of all the times that it was taken."""


class RecordedWorker(Worker):
    """A worker that adds a line to a file of its own for each step that it has taken."""

    def __init__(self, plan: TrainingPlan, board: Any) -> None:
        super().__init__(plan, board)
        folder = folder_of(plan.folder)
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{time.time_ns()}-{os.getpid()}.jsonl"
        self._file = (folder / name).open("w", buffering=1, encoding="utf-8")

    def take(self, step: Step, wait: float) -> None:
        super().take(step, wait)
        line = {
            "step": self.state.step,
            "rank": self.rank,
            "world_size": self.world_size,
            "epoch": step.position.epoch,
            "pairs": [batch.pairs.tolist() for batch in step.micro_batches],
            "weights": digest(dict(self.model.named_parameters())),
            "time": time.time(),
        }
        self._file.write(json.dumps(line) + "\n")


def recorded_loop(plan: TrainingPlan, board: Any) -> str:
    """`training_loop` with recording workers."""
    heliograph.pipeline.training.loop.Worker = RecordedWorker  # type: ignore[misc]  # this process does nothing else
    return heliograph.pipeline.training.loop.training_loop(plan, board)


def folder_of(job_folder: str) -> Path:
    """Where the records of a job's workers are."""
    return Path(job_folder) / "records"


def records(job_folder: str) -> Records:
    found: Records = {}
    for file in sorted(folder_of(job_folder).glob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.endswith("}"):  # the last one of a killed worker may be cut off
                record = json.loads(line)
                found.setdefault(record["step"], []).append(record)
    return found


def pairs_of(record: Records) -> dict[int, list[list[int]]]:
    """By step its micro-batches, of all ranks; where a step was taken twice, each time the same.

    A step that a killed worker took and could not tell of is not there.
    """
    steps = {}
    for step, lines in record.items():
        shares: dict[tuple[int, int], list[list[int]]] = {}
        for line in lines:
            key = (line["world_size"], line["rank"])
            assert shares.setdefault(key, line["pairs"]) == line["pairs"]
        whole = {
            size: sorted(
                chain.from_iterable(share for (s, _), share in shares.items() if s == size)
            )
            for size in {size for size, _ in shares}
            if len([1 for s, _ in shares if s == size]) == size
        }
        assert len({json.dumps(each) for each in whole.values()}) <= 1, (step, whole)
        if whole:
            steps[step] = next(iter(whole.values()))
    return steps


def digest(weights: dict[str, Tensor]) -> str:
    """SHA-256 of all bits of the weights."""
    total = hashlib.sha256()
    for name in sorted(weights):
        total.update(weights[name].detach().cpu().numpy().tobytes())
    return total.hexdigest()


if __name__ == "__main__":
    # By its importable name, which the workers know it by.
    from tests import recorded_job

    heliograph.pipeline.workers.train.training_loop = recorded_job.recorded_loop
    run_alone(train)
