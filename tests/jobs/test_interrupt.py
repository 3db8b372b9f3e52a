"""Ctrl-C and `kill` of `heliograph train`: a clean end, wherever it was."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from tests.ray_nodes import is_worker, title_of
from tests.small_job import Command, small_recipe
from tests.waiting import DEADLINE, LONG, wait_until

pytestmark = pytest.mark.timeout(1800)  # whole jobs, which begin with a Ray of their own

STEPS = 4_000
"""More than are taken before the interrupt."""


@pytest.fixture
def train(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """Starts the same small job in the same folder each time."""
    started: list[Command] = []
    recipe = small_recipe(
        tmp_path,
        train={"steps": STEPS, "checkpoint_steps": STEPS},
        validation={"every_steps": STEPS, "sentences": 10},
        track={"every_steps": 1, "attention_sentences": 0},
    )
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")

    def train(*words: str) -> Command:
        started.append(Command(["heliograph.jobs.train", "recipe.yaml", *words], tmp_path, {}))
        return started[-1]

    yield train
    for command in started:  # where a test failed, one still runs
        command.kill()


def while_it_runs(condition: Callable[[], object], command: Command) -> None:
    """Wait until the condition holds."""

    def holds() -> object:
        assert command.process.poll() is None, command.said()
        return condition()

    wait_until(holds, command.said, seconds=LONG)


def assert_ends_cleanly(command: Command, *, terminal: bool = True) -> None:
    """Exit code 130, and no process left behind, after Ctrl-C in a terminal or `kill PID`."""
    family = command.family()
    if terminal:
        command.interrupt()
    else:
        command.process.terminate()
    assert command.process.wait(DEADLINE) == 130, command.said()
    wait_until(lambda: not any(map(is_alive, family)), command.said)
    assert "Traceback" not in command.said()


def is_alive(process: psutil.Process) -> bool:
    """Not one that has ended, and that nobody has asked how."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def checkpoints(folder: Path) -> list[int]:
    """Their steps."""
    found = folder.glob("storage/jobs/*/checkpoints/step-*")
    return [int(path.name.removeprefix("step-")) for path in found]


def the_run(folder: Path) -> Run:
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    return run


def logged_steps(folder: Path) -> list[int]:
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    history = client.get_metric_history(the_run(folder).info.run_id, "train/loss")
    return [metric.step for metric in history]


def test_while_training_a_checkpoint_is_taken(
    train: Callable[..., Command], tmp_path: Path
) -> None:
    command = train()
    while_it_runs(lambda: re.search(r"step \d+", command.said()), command)
    assert_ends_cleanly(command)
    (step,) = checkpoints(tmp_path)
    assert logged_steps(tmp_path) == list(range(1, step + 1))
    assert the_run(tmp_path).info.status == "KILLED"


@pytest.mark.faults
def test_killed_while_the_data_are_prepared_it_leaves_no_process_behind(
    train: Callable[..., Command], tmp_path: Path
) -> None:
    command = train()
    while_it_runs(lambda: [*tmp_path.glob("storage/corpora/*/manifest.json")], command)
    family = command.family()
    command.kill()
    assert_all_end(family)


def assert_all_end(family: list[psutil.Process]) -> None:
    """Whose first was killed: Ray's agents notice it within a minute."""
    _, alive = psutil.wait_procs(family, timeout=DEADLINE)
    assert not alive


@pytest.mark.faults
def test_killed_while_training_the_same_command_goes_on(
    train: Callable[..., Command], tmp_path: Path
) -> None:
    command = train("train.checkpoint_steps=20")
    while_it_runs(lambda: len(checkpoints(tmp_path)) > 0, command)
    family = command.family()
    command.kill()
    said = command.said()
    command = train("train.checkpoint_steps=20")
    while_it_runs(lambda: re.search(r"· step \d+", command.said().removeprefix(said)), command)
    resumed = re.search(r"· step (\d+)", command.said().removeprefix(said))
    assert resumed
    assert int(resumed[1]) > 20  # it did not begin again
    assert_ends_cleanly(command)
    assert the_run(tmp_path).info.status == "KILLED"
    steps = logged_steps(tmp_path)
    assert steps == list(range(1, len(steps) + 1))
    # The killed one may have logged steps that the second was ended before taking again.
    assert len(steps) >= max(checkpoints(tmp_path)) >= 20
    assert_all_end(family)


@pytest.mark.faults
def test_while_the_workers_are_started(train: Callable[..., Command]) -> None:
    command = train()
    while_it_runs(lambda: any(map(is_worker, command.family())), command)
    assert_ends_cleanly(command)


@pytest.mark.faults
@pytest.mark.parametrize("terminal", [True, False])
def test_while_training_a_checkpoint_is_taken_and_the_same_command_goes_on(
    train: Callable[..., Command], tmp_path: Path, terminal: bool
) -> None:
    command = train()
    while_it_runs(lambda: re.search(r"step \d+", command.said()), command)
    assert_ends_cleanly(command, terminal=terminal)
    (first,) = checkpoints(tmp_path)
    assert logged_steps(tmp_path) == list(range(1, first + 1))

    command = train()
    while_it_runs(lambda: logged_steps(tmp_path)[-1] > first, command)
    assert_ends_cleanly(command, terminal=terminal)
    assert f"goes on from the checkpoint of step {first}\n" in command.said()
    second = max(checkpoints(tmp_path))
    assert logged_steps(tmp_path) == list(range(1, second + 1))


@pytest.mark.faults
@pytest.mark.parametrize("terminal", [True, False])
def test_while_ray_is_started(train: Callable[..., Command], terminal: bool) -> None:
    command = train()
    while_it_runs(lambda: any("raylet" in title_of(each) for each in command.family()), command)
    time.sleep(0.5)  # its other processes follow
    assert_ends_cleanly(command, terminal=terminal)


@pytest.mark.faults
def test_while_the_data_are_prepared(train: Callable[..., Command], tmp_path: Path) -> None:
    command = train()
    while_it_runs(lambda: (tmp_path / "storage/corpora").exists(), command)
    assert_ends_cleanly(command)
