"""Training on Ray Train's real workers: it resumes exactly, survives a kill, and stops in time."""

import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from torch.multiprocessing import ProcessRaisedException

import heliograph.pipeline.training.loop
from heliograph.pipeline.checkpoints.training_state import TrainingState
from heliograph.pipeline.request import recipe
from heliograph.pipeline.request.errors import JobStopped
from heliograph.pipeline.request.placement import Nodes, place
from heliograph.pipeline.runs.progress import open_board
from heliograph.pipeline.steps.batches import Step
from heliograph.pipeline.tracking.events import read_events
from heliograph.pipeline.tracking.server import connect
from heliograph.pipeline.tracking.sync import sync_job
from heliograph.pipeline.training.averaging import is_averaged
from heliograph.pipeline.training.loop import training_loop
from heliograph.pipeline.training.plan import TrainingPlan
from heliograph.pipeline.training.worker import Worker
from heliograph.pipeline.workers.reporter import Reporter
from heliograph.pipeline.workers.train import SECONDS_TO_START, train
from tests.local_ranks import train_locally
from tests.small_plan import job, weights
from tests.tracking_server import Door
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(scope="session")
def shared_plan(small_training: TrainingPlan) -> TrainingPlan:
    """Of few steps; a window is about five."""
    return replace(
        small_training,
        train=recipe.Train(steps=9, warmup_steps=4, checkpoint_steps=2),
        validation=recipe.Validation(every_steps=100, sentences=4),
    )


@pytest.fixture
def plan(shared_plan: TrainingPlan, request: pytest.FixtureRequest) -> TrainingPlan:
    """A job of the test's own, in a folder and a run of its own."""
    return job(shared_plan, request.node.name)


def run(
    plan: TrainingPlan, workers: int = 2, max_failures: int = 2, **changes: Any
) -> TrainingState:
    """Train with some of the plan's training settings changed."""
    plan = replace(plan, train=plan.train.model_copy(update=changes))
    cluster = recipe.Cluster(workers=workers, max_failures=max_failures)
    return train(plan, place(cluster, [Nodes(1, cpus=2)]), cluster, open_board())


def logged_steps(plan: TrainingPlan, key: str = "train/loss") -> list[int]:
    client = connect(plan.tracking_uri)
    return [metric.step for metric in client.get_metric_history(plan.run_id, key)]


@pytest.fixture(scope="session")
def whole(shared_plan: TrainingPlan) -> TrainingPlan:
    """The plan, trained to its end in one go."""
    whole = job(shared_plan, "whole")
    assert run(whole).step == 9
    return whole


@pytest.mark.faults
def test_a_job_in_two_starts_is_the_job_in_one(plan: TrainingPlan, whole: TrainingPlan) -> None:
    first = run(plan, steps=7)  # in the middle of a window
    assert (first.step, first.position.step) != (7, 0)
    second = run(plan)
    assert second.position == whole.checkpoints.newest_state().position
    assert second.total.target_tokens == whole.checkpoints.newest_state().total.target_tokens
    assert weights(plan) == weights(whole)
    assert logged_steps(plan) == list(range(1, 10))
    assert run(plan) == second  # nothing is left to do


def test_training_stops_when_validation_gets_no_better_and_scores_the_average(
    plan: TrainingPlan, tmp_path: Path
) -> None:
    # At this rate nothing is learned, so no validation is better than the first.
    changes = {"learning_rate": 1e-12, "steps": 100}
    averaged = {"average_checkpoints": 2, "keep_checkpoints": 2}
    patient = replace(
        plan,
        train=plan.train.model_copy(update=changes | averaged),
        validation=recipe.Validation(every_steps=2, sentences=4, patience=2),
    )
    state = train_locally(patient, 2, tmp_path)
    assert state.step == 6
    assert state.best is not None
    assert state.best.step == 2
    assert logged_steps(plan, "valid/bleu") == [2, 4, 6]
    assert patient.checkpoints.steps() == [2, 4, 6]  # the best one is kept
    assert logged_steps(plan, "valid/bleu_of_average") == [6]
    assert patient.averages.steps() in ([], [6])
    assert is_averaged(patient, state)

    # All ranks were lost while they looked at the mean: no step is taken beyond the end.
    next(Path(patient.folder).glob("averaged-*")).unlink()
    (tmp_path / "again").mkdir()
    assert train_locally(patient, 2, tmp_path / "again") == state
    assert is_averaged(patient, state)


@pytest.mark.parametrize("ranks", [pytest.param(2, marks=pytest.mark.faults), 3])
def test_ranks_that_have_no_micro_batch_meet_the_others_in_every_collective(
    plan: TrainingPlan, ranks: int, tmp_path: Path
) -> None:
    """One micro-batch a step, and intervals that never meet (issue 15, 2)."""
    batches = {"tokens_per_micro_batch": 256, "tokens_per_step": 256}
    idle = replace(
        plan,
        batches=plan.batches.model_copy(update=batches),
        train=plan.train.model_copy(update={"steps": 14, "checkpoint_steps": 4}),
        validation=recipe.Validation(every_steps=5, sentences=4),
        log_every_steps=3,
    )
    assert train_locally(idle, ranks, tmp_path).step == 14
    assert logged_steps(plan) == [3, 4, 5, 6, 8, 9, 10, 12, 14]
    assert logged_steps(plan, "valid/loss") == [5, 10, 14]


@contextmanager
def interrupted_once(condition: Callable[[], object]) -> Iterator[None]:
    """Ctrl-C for what runs in the block, once the condition holds."""
    # A trainer that was run in this thread, as other tests do, has put Ray's own handler there.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt() -> None:
        wait_until(condition)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    yield
    thread.join()


@pytest.mark.faults
def test_an_interrupt_takes_a_checkpoint_and_the_next_start_goes_on(
    plan: TrainingPlan,
) -> None:
    rare = {"checkpoint_steps": 1_000, "steps": 2_000}  # only the interrupt takes a checkpoint
    with interrupted_once(lambda: logged_steps(plan)), pytest.raises(KeyboardInterrupt):
        run(plan, **rare)
    (step,) = plan.checkpoints.steps()
    assert plan.checkpoints.newest_state().step == step < 2_000
    assert logged_steps(plan) == list(range(1, step + 1))
    assert run(plan, checkpoint_steps=1_000, steps=step + 2).step == step + 2
    assert logged_steps(plan) == list(range(1, step + 3))


class ShotReporter(Reporter):
    """A worker dies the first time that all have been created, before their loop runs."""

    def after_worker_group_start(self, worker_group: Any) -> None:
        worker_group.execute_single(0, die_once, f"{self._plan.folder}/has died")
        super().after_worker_group_start(worker_group)


def die_once(mark: str) -> None:
    if not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.faults
def test_a_worker_that_dies_while_it_is_started_gives_its_room_back(
    plan: TrainingPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the data tasks of the next start would wait for it for ever."""
    monkeypatch.setattr("heliograph.pipeline.workers.train.Reporter", ShotReporter)
    assert run(plan).step == 9
    assert Path(plan.folder, "has died").exists()
    assert logged_steps(plan) == list(range(1, 10))


class SlowWorker(Worker):
    """A worker whose steps take longer than an interrupt waits for workers that only start."""

    def take(self, step: Step, wait: float) -> None:
        if self.state.step >= 2:
            time.sleep(SECONDS_TO_START + 2)
        super().take(step, wait)


def slow_loop(plan: TrainingPlan, board: Any) -> str:
    heliograph.pipeline.training.loop.Worker = SlowWorker  # type: ignore[misc]  # this process does nothing else
    return training_loop(plan, board)


@pytest.mark.faults
def test_an_interrupt_waits_for_a_step_that_takes_long(
    plan: TrainingPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heliograph.pipeline.workers.train.training_loop", slow_loop)
    with interrupted_once(lambda: 2 in logged_steps(plan)), pytest.raises(KeyboardInterrupt):
        run(plan, checkpoint_steps=1_000, steps=1_000)
    (step,) = plan.checkpoints.steps()
    assert 2 < step < 1_000
    assert logged_steps(plan) == list(range(1, step + 1))


EXPLODES = {"learning_rate": 1e30, "steps": 50, "max_skipped_steps": 2}
EXPLODED = r"gradient of step \d+ is (nan|inf), and 3 steps in a row .*pairs of \d+ source"


def test_a_gradient_that_is_not_finite_is_skipped_and_soon_the_end(
    plan: TrainingPlan, tmp_path: Path
) -> None:
    exploding = replace(plan, train=plan.train.model_copy(update=EXPLODES))
    with pytest.raises(ProcessRaisedException, match=rf"JobStopped: the {EXPLODED}"):
        train_locally(exploding, 1, tmp_path)
    sync_job(plan.tracking_uri, plan.folder)  # as the job does at its end
    client = connect(plan.tracking_uri)
    skipped = client.get_metric_history(plan.run_id, "train/skipped_steps")
    assert max(metric.value for metric in skipped) == 2  # the third ended it


@pytest.mark.faults
def test_what_starting_again_would_not_mend_ends_the_job(plan: TrainingPlan) -> None:
    with pytest.raises(JobStopped, match=EXPLODED):
        run(plan, workers=1, **EXPLODES)
    assert read_events(plan.events) == []  # it was not started again (issue 15, 7)


class CrampedWorker(Worker):
    """A worker that may not take much more memory than it has when it takes its first step."""

    def take(self, step: Step, wait: float) -> None:
        if self.state.step == 0:
            limit = psutil.Process().memory_info().vms + 200_000_000
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        super().take(step, wait)


def cramped_loop(plan: TrainingPlan, board: Any) -> str:
    heliograph.pipeline.training.loop.Worker = CrampedWorker  # type: ignore[misc]  # this process does nothing else
    return training_loop(plan, board)


@pytest.mark.faults
def test_a_batch_too_large_for_memory_is_named_with_what_to_lower(
    plan: TrainingPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heliograph.pipeline.workers.train.training_loop", cramped_loop)
    sizes = {"tokens_per_micro_batch": 16_384, "tokens_per_step": 32_768}
    large = replace(
        plan,
        batches=plan.batches.model_copy(update=sizes),
        model=plan.model.model_copy(update={"feed_forward": 16_384}),
    )
    with pytest.raises(
        JobStopped,
        match=r"step 1 needs more memory than cpu of rank \d has: \d+ pairs of \d+ source and "
        r".*Lower batches.tokens_per_micro_batch from 16384",
    ):
        run(large, max_failures=0)


def arrive(folder: str) -> Callable[..., Any]:
    """The training loop, of which one worker dies the first time that it receives it."""
    try:
        Path(folder, "has died").touch(exist_ok=False)
    except FileExistsError:
        return training_loop
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


class Deadly:
    """What a worker receives as its loop."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __call__(self, plan: TrainingPlan, board: Any) -> None:  # noqa: ARG002  # Ray counts them
        raise AssertionError("only what arrives is called")

    def __reduce__(self) -> tuple[Any, ...]:
        return arrive, (self.folder,)


@pytest.mark.faults
def test_a_worker_that_dies_when_it_receives_the_loop_is_started_again(
    plan: TrainingPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heliograph.pipeline.workers.train.training_loop", Deadly(str(tmp_path)))
    assert run(plan).step == 9
    assert (tmp_path / "has died").exists()
    (event,) = read_events(plan.events)
    assert (event.kind, event.step) == ("failure", 0)
    assert "a worker died at its start, 1 of at most 2 times" in event.message


@pytest.mark.faults
def test_training_goes_on_while_the_tracking_server_is_away(plan: TrainingPlan, door: Door) -> None:
    tracked = job(replace(plan, tracking_uri=door.url), "outage")
    during: list[int] = []

    def shut_the_door_for_a_while() -> None:
        wait_until(lambda: len(door.arrived) > 50)
        door.mode = "refuses"
        before = max(tracked.checkpoints.steps(), default=0)
        wait_until(lambda: max(tracked.checkpoints.steps(), default=0) > before + 10)
        during.append(before)
        door.mode = "open"

    thread = threading.Thread(target=shut_the_door_for_a_while)
    thread.start()
    run(tracked, steps=300, checkpoint_steps=5, keep_checkpoints=1_000)
    thread.join()
    sync_job(door.url, tracked.folder)
    assert during  # two checkpoints were taken meanwhile
    assert logged_steps(tracked) == list(range(1, 301))
