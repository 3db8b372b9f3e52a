"""At whatever step workers are killed, training takes the steps of an undisturbed run.

What else may befall it: test_nodes.py.
"""

import json
import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, cycle
from pathlib import Path

import numpy as np
import pytest
import ray.train

from heliograph.pipeline.training.plan import TrainingPlan
from tests.recorded_job import folder_of, pairs_of, records
from tests.small_plan import PAIRS, STEPS, Undisturbed, assert_same, job, losses, train_recorded

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(1800)]


@contextmanager
def kill_workers(plan: TrainingPlan, *steps: int) -> Iterator[list[int]]:
    """One of them each time that such a step was taken; the steps at which one was killed."""
    done: list[int] = []
    stop = threading.Event()

    def run() -> None:
        for step in steps:
            while newest_step(plan) < step or not kill_one(list(workers(plan))):
                if stop.wait(0.01):
                    return
            done.append(step)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join()


def workers(plan: TrainingPlan) -> dict[int, int]:
    """Of each that is alive its process id, and the newest step that it has taken."""
    found = {}
    for file in folder_of(plan.folder).glob("*.jsonl"):
        pid = int(file.stem.partition("-")[2])
        lines = [line for line in file.read_text().splitlines() if line.endswith("}")]
        if lines and Path(f"/proc/{pid}").exists():
            found[pid] = json.loads(lines[-1])["step"]
    return found


def newest_step(plan: TrainingPlan) -> int:
    return max(workers(plan).values(), default=0)


def kill_one(victims: list[int]) -> bool:
    if victims:
        os.kill(random.choice(victims), signal.SIGKILL)
    return bool(victims)


def test_an_undisturbed_run_takes_each_pair_once_an_epoch_on_equal_weights(
    undisturbed: Undisturbed,
) -> None:
    record = undisturbed.records
    assert sorted(record) == list(range(1, STEPS + 1))
    epochs: dict[int, list[int]] = {}
    for step, micro_batches in pairs_of(record).items():
        assert len({line["weights"] for line in record[step]}) == 1
        taken = epochs.setdefault(record[step][0]["epoch"], [])
        taken += chain.from_iterable(micro_batches)
    assert len(epochs) > 2
    for epoch in sorted(epochs)[:-1]:
        assert np.sort(epochs[epoch]).tolist() == list(range(PAIRS))


def some_steps(count: int, seed: int) -> list[int]:
    """At which to kill."""
    return sorted(random.Random(seed).sample(range(2, STEPS - 20), count))


@pytest.mark.faults
def test_ten_killed_workers_are_replaced_and_nothing_differs_by_a_bit(
    undisturbed: Undisturbed,
) -> None:
    disturbed = job(undisturbed.plan, "killed")
    with kill_workers(disturbed, *some_steps(10, seed=1)) as done:
        train_recorded(disturbed, workers=2, max_failures=10)
    assert len(done) == 10
    assert_same(disturbed, undisturbed)


@pytest.mark.faults
def test_each_restart_may_have_another_number_of_workers(undisturbed: Undisturbed) -> None:
    disturbed = job(undisturbed.plan, "other-sizes")
    for step, workers in zip(some_steps(10, seed=2), cycle([1, 3, 2]), strict=False):
        with (
            kill_workers(disturbed, step) as done,
            pytest.raises(ray.train.TrainingFailedError),
        ):
            train_recorded(disturbed, workers, max_failures=0)
        assert len(done) == 1
    train_recorded(disturbed, workers=3, max_failures=0)
    assert pairs_of(records(disturbed.folder)) == pairs_of(undisturbed.records)
    assert list(losses(disturbed)) == list(range(1, STEPS + 1))
