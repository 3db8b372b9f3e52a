"""Killed again and again at random steps, training takes the steps of an undisturbed run."""

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain, cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray.train

from pipeline import recipe
from pipeline.placement import Placement
from pipeline.plan import TrainingPlan
from pipeline.progress import open_board
from pipeline.train import make_trainer
from tests.pipeline.small_plan import PAIRS, STEPS, job, losses, small_plan
from tests.recorded_job import Records, folder_of, pairs_of, recorded_loop, records

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(60 + 60 * 10)]

KILLS = 2 * int(os.environ.get("HELIOGRAPH_FAULTS", "1"))
"""In each of the two tests."""
DEADLINE = 60.0
"""Seconds without a step after which a test gives up."""


@pytest.fixture(scope="module")
def plan(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> TrainingPlan:
    return small_plan(tmp_path_factory.mktemp("resume"))


@contextmanager
def kills(plan: TrainingPlan, goals: Sequence[int]) -> Iterator[list[int]]:
    """SIGKILL to a random worker of the job whenever the next of these steps was taken; the steps
    at which it happened."""
    done: list[int] = []
    stop = threading.Event()
    draw = random.Random(goals[0])

    def run() -> None:
        for goal in goals:
            victims = wait_for(partial(workers_at, plan, goal), stop)
            if not victims:
                return
            done.append(max(step for step, _ in victims))
            os.kill(draw.choice(victims)[1], signal.SIGKILL)

    killer = threading.Thread(target=run)
    killer.start()
    try:
        yield done
    finally:
        stop.set()
        killer.join()


def workers_at(plan: TrainingPlan, goal: int) -> list[tuple[int, int]]:
    """Step and pid of each worker that is alive, if one has taken this step."""
    found = []
    for file in folder_of(plan.folder).glob("*.jsonl"):
        pid, lines = int(file.stem.partition("-")[2]), file.read_text().splitlines()
        if lines and Path(f"/proc/{pid}").exists():
            found.append((json.loads(lines[-1])["step"], pid))
    return found if found and max(found)[0] >= goal else []


def wait_for(condition: Callable[[], list[Any]], stop: threading.Event) -> list[Any]:
    deadline = time.monotonic() + DEADLINE
    while not stop.is_set() and time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    return []


def run(plan: TrainingPlan, workers: int, max_failures: int) -> None:
    placement = Placement(workers, use_gpu=False, cpus_per_worker=1 / workers)
    loop = partial(recorded_loop, plan, open_board())
    cluster = recipe.Cluster(workers=workers, max_failures=max_failures)
    make_trainer(plan, placement, cluster, loop).fit()


@pytest.fixture(scope="module")
def undisturbed(plan: TrainingPlan) -> tuple[Records, dict[int, float]]:
    whole = job(plan, "undisturbed")
    run(whole, workers=2, max_failures=0)
    return records(whole.folder), losses(whole)


def test_an_undisturbed_run_takes_each_pair_once_an_epoch_on_equal_weights(
    undisturbed: tuple[Records, dict[int, float]],
) -> None:
    record = undisturbed[0]
    assert sorted(record) == list(range(1, STEPS + 1))
    epochs: dict[int, list[int]] = {}
    for step, micro_batches in pairs_of(record).items():
        assert len({line["weights"] for line in record[step]}) == 1
        taken = epochs.setdefault(record[step][0]["epoch"], [])
        taken += chain.from_iterable(micro_batches)
    assert len(epochs) > 2
    for epoch in sorted(epochs)[:-1]:
        assert np.sort(epochs[epoch]).tolist() == list(range(PAIRS))


GOALS = sorted(random.Random(1).sample(range(2, STEPS - 3), 2 * KILLS))


def test_killed_workers_are_replaced_and_nothing_differs_by_a_bit(
    plan: TrainingPlan, undisturbed: tuple[Records, dict[int, float]]
) -> None:
    disturbed = job(plan, "killed")
    with kills(disturbed, GOALS[::2]) as killed:
        run(disturbed, workers=2, max_failures=KILLS)
    assert len(killed) == KILLS
    record = records(disturbed.folder)
    expected, expected_losses = undisturbed
    assert pairs_of(record) == pairs_of(expected)
    for step, lines in record.items():
        assert {line["weights"] for line in lines} == {expected[step][0]["weights"]}
    assert losses(disturbed) == expected_losses


def test_each_restart_may_have_another_number_of_workers(
    plan: TrainingPlan, undisturbed: tuple[Records, dict[int, float]]
) -> None:
    disturbed = job(plan, "other-sizes")
    for goal, workers in zip(GOALS[1::2], cycle([1, 3, 2]), strict=False):
        with kills(disturbed, [goal]) as killed, pytest.raises(ray.train.TrainingFailedError):
            run(disturbed, workers, max_failures=0)
        assert len(killed) == 1
    run(disturbed, workers=3, max_failures=0)
    assert pairs_of(records(disturbed.folder)) == pairs_of(undisturbed[0])
    assert list(losses(disturbed)) == list(range(1, STEPS + 1))
