"""Promoters that are killed at any write."""

import os
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from heliograph.pipeline.promotion.promote import history, promote, rollback
from heliograph.pipeline.tracking.server import PatientClient
from tests import processes
from tests.pipeline.conftest import MakeModel
from tests.pipeline.model_store import Store

READS = ("get_", "search_", "list_", "download_", "load_", "_")


def die_before_write(number: int, count: Path) -> None:
    """Make this process kill itself just before its so manieth write to MLflow; `count` says how
    many there were."""
    done = 0

    def guarded(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal done
            done += 1
            with count.open("a") as file:
                file.write(f"{method.__name__}\n")
            if done == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return method(*arguments, **named)

        return call

    for name, method in vars(MlflowClient).items():
        if callable(method) and not name.startswith(READS):
            setattr(MlflowClient, name, guarded(method))


def work_until(number: int, count: Path, work: Callable[[], Any]) -> None:
    die_before_write(number, count)
    work()


def in_a_process_that_dies(work: Callable[[], Any], number: int, count: Path) -> bool:
    """Whether it was killed."""
    process = processes.start_here(work_until, number, count, work)
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), "see its traceback"
    return process.exitcode != 0


@pytest.fixture
def at_every_write(
    store: Store, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[int | None]]:
    """Kills `work` before each of its writes in turn, or every so manieth, each time in a copy of
    a store with two versions, and looks whether all is well after the next command; who is champion
    then."""
    store.register_like(make_model(1), 2)

    def run(work: Callable[[], Any], champions: list[int], every: int = 1) -> list[int | None]:
        for champion in champions:
            promote("tiny", version=champion, force="to begin with")
        before = len(champions)
        found: list[int | None] = []
        for number in range(1, 100, every):
            folder = store.folder / f"fault-{number}"
            folder.mkdir()
            shutil.copyfile(store.folder / "mlflow.db", folder / "mlflow.db")
            monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
            killed = in_a_process_that_dies(work, number, folder / "writes")
            records = history("tiny")
            store.client = PatientClient(os.environ["MLFLOW_TRACKING_URI"])
            store.check_consistency()
            assert len(records) in (before, before + 1)
            found.append(records[-1].champion if records else None)
            assert (len(records) > before) == (found[-1] != ([None, *champions])[-1])
            if not killed:
                written = (folder / "writes").read_text().split()
                assert {"log_param", "set_registered_model_alias"} <= set(written)
                assert len(written) < number <= len(written) + every
                return found
            work()  # as a user does who saw it die
            store.check_consistency()
        raise AssertionError("it never came to an end")

    return run


@pytest.mark.faults
def test_a_first_promotion_killed_at_any_write(
    at_every_write: Callable[..., list[int | None]],
) -> None:
    found = at_every_write(partial(promote, "tiny", version=2), [])
    moved = found.index(2)
    assert found == [None] * moved + [2] * (len(found) - moved)
    assert 0 < moved < len(found) - 2, "some of the writes come before the decision, some after"


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.faults)])
def test_a_promotion_killed_at_any_write(
    at_every_write: Callable[..., list[int | None]], every: int
) -> None:
    found = at_every_write(partial(promote, "tiny", version=2, force="a test"), [1], every)
    moved = found.index(2)
    assert found == [1] * moved + [2] * (len(found) - moved)


def back() -> None:
    if len(history("tiny")) < 3:
        rollback("tiny")


@pytest.mark.faults
def test_a_rollback_killed_at_any_write(at_every_write: Callable[..., list[int | None]]) -> None:
    found = at_every_write(back, [1, 2])
    moved = found.index(1)
    assert found == [2] * moved + [1] * (len(found) - moved)
