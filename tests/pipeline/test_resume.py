"""Whatever befalls it, and at whatever step, training takes the steps of an undisturbed run."""

import json
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, cycle
from pathlib import Path

import numpy as np
import psutil
import pytest
import ray.train

from pipeline.plan import TrainingPlan
from pipeline.sync import sync_job
from tests.ray_nodes import is_data_task
from tests.recorded_job import folder_of, pairs_of, records
from tests.small_plan import (
    PAIRS,
    STEPS,
    Undisturbed,
    job,
    losses,
    train_recorded,
    weights,
)
from tests.tracking_server import Door, Mode

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(1800)]


Fault = Callable[[TrainingPlan], bool]
"""Does it to the job, if that can be done at this moment; whether it was done."""


@contextmanager
def befall(plan: TrainingPlan, *faults: tuple[int, Fault]) -> Iterator[list[int]]:
    """Each fault once its step was taken, in their order; the steps of those that were done."""
    done: list[int] = []
    stop = threading.Event()

    def run() -> None:
        for step, fault in faults:
            while newest_step(plan) < step or not fault(plan):
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


def kill_a_worker(plan: TrainingPlan) -> bool:
    return kill_one(list(workers(plan)))


def kill_a_data_task(_: TrainingPlan) -> bool:
    """One that makes batches at this moment."""
    processes = psutil.Process().children(recursive=True)
    return kill_one([process.pid for process in processes if is_data_task(process)])


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


def assert_same(disturbed: TrainingPlan, undisturbed: Undisturbed) -> None:
    """To the last bit, after every step and on every rank."""
    record = records(disturbed.folder)
    assert pairs_of(record) == pairs_of(undisturbed.records)
    for step, lines in record.items():
        assert {line["weights"] for line in lines} == {undisturbed.records[step][0]["weights"]}
    assert losses(disturbed) == undisturbed.losses
    assert weights(disturbed) == undisturbed.weights


def test_whatever_befalls_it_nothing_differs_by_a_bit(undisturbed: Undisturbed, door: Door) -> None:
    """The tracking server goes away, a data task and a worker are killed, the server comes back."""

    def set_door(mode: Mode) -> Fault:
        def fault(_: TrainingPlan) -> bool:
            door.mode = mode
            return True

        return fault

    for attempt in range(3):  # a data task takes milliseconds, and may be missed
        disturbed = job(replace(undisturbed.plan, tracking_uri=door.url), f"befallen-{attempt}")
        with befall(
            disturbed,
            (2, set_door("refuses")),
            (3, kill_a_data_task),
            (50, kill_a_worker),
            (80, set_door("open")),
        ) as done:
            train_recorded(disturbed, workers=2, max_failures=1)
        door.mode = "open"
        sync_job(door.url, disturbed.folder)  # as the job does at its end
        assert_same(disturbed, undisturbed)
        if len(done) == 4:
            return
    pytest.fail("there never was a data task to be killed")


@pytest.mark.faults
def test_ten_killed_workers_are_replaced_and_nothing_differs_by_a_bit(
    undisturbed: Undisturbed,
) -> None:
    disturbed = job(undisturbed.plan, "killed")
    faults = [(step, kill_a_worker) for step in some_steps(10, seed=1)]
    with befall(disturbed, *faults) as done:
        train_recorded(disturbed, workers=2, max_failures=10)
    assert len(done) == 10
    assert_same(disturbed, undisturbed)


@pytest.mark.faults
def test_each_restart_may_have_another_number_of_workers(undisturbed: Undisturbed) -> None:
    disturbed = job(undisturbed.plan, "other-sizes")
    for step, workers in zip(some_steps(10, seed=2), cycle([1, 3, 2]), strict=False):
        with (
            befall(disturbed, (step, kill_a_worker)) as done,
            pytest.raises(ray.train.TrainingFailedError),
        ):
            train_recorded(disturbed, workers, max_failures=0)
        assert len(done) == 1
    train_recorded(disturbed, workers=3, max_failures=0)
    assert pairs_of(records(disturbed.folder)) == pairs_of(undisturbed.records)
    assert list(losses(disturbed)) == list(range(1, STEPS + 1))
