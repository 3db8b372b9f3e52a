"""Training waits for a copy only, errors are heard, and no kill leaves half a checkpoint."""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace

import pytest

from heliograph.pipeline.checkpoints.background import BackgroundSaver, Write
from heliograph.pipeline.checkpoints.checkpoint_store import CheckpointStore
from heliograph.pipeline.storage.filesystems import filesystem_of
from heliograph.pipeline.storage.listing import list_folder
from tests import processes
from tests.pipeline.saving import save_for_ever, step_in, writer
from tests.waiting import DEADLINE


@pytest.fixture
def store(storage: str) -> CheckpointStore:
    return CheckpointStore(f"{storage}/checkpoints")


def fail(folder: Path) -> None:
    raise OSError("the disk is on fire")


def held(step: int, release: threading.Event) -> Write:
    """Writes the step's checkpoint once it may."""

    def write(folder: Path) -> None:
        assert release.wait(DEADLINE)
        writer(step)(folder)

    return write


def test_training_goes_on_while_a_checkpoint_is_written(store: CheckpointStore) -> None:
    release = threading.Event()
    with BackgroundSaver(store, keep_newest=2, keep_best=0) as saver:
        saver.save(1, lambda: held(1, release))
        written_meanwhile = store.steps()
        release.set()
    assert written_meanwhile == []
    assert store.steps() == [1]


def test_the_copy_is_made_after_the_write_before_and_the_wait_is_a_pause(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, now, written_before = threading.Event(), [100.0], []

    def clock() -> float:
        """Asked when the second save begins and when it is done; the first may end then."""
        release.set()
        return now[0]

    def write_for_seven_seconds(folder: Path) -> None:
        held(1, release)(folder)
        now[0] += 7

    def take() -> Write:
        written_before.extend(store.steps())
        now[0] += 2
        return writer(2)

    with BackgroundSaver(store, keep_newest=2, keep_best=0) as saver:
        saver.save(1, lambda: write_for_seven_seconds)
        monkeypatch.setattr(
            "heliograph.pipeline.checkpoints.background.time", SimpleNamespace(perf_counter=clock)
        )
        pause = saver.save(2, take)
    assert pause == 7 + 2
    assert written_before == [1]
    assert store.steps() == [1, 2]


def test_an_error_is_raised_by_the_next_save_and_once(store: CheckpointStore) -> None:
    with BackgroundSaver(store, keep_newest=2, keep_best=0) as saver:
        saver.save(1, lambda: fail)
        with pytest.raises(OSError, match=r"step 1 could not be saved .* on fire"):
            saver.save(2, lambda: writer(2))
        saver.save(3, lambda: writer(3))
    assert store.steps() == [3]


def test_an_error_is_raised_by_the_end(store: CheckpointStore) -> None:
    saver = BackgroundSaver(store, keep_newest=2, keep_best=0)
    saver.save(1, lambda: fail)
    with pytest.raises(OSError, match="step 1 could not be saved"):
        saver.finish()
    saver.finish()


def test_the_error_that_ended_training_comes_first(
    store: CheckpointStore, caplog: pytest.LogCaptureFixture
) -> None:
    def train() -> None:
        with BackgroundSaver(store, keep_newest=2, keep_best=0) as saver:
            saver.save(1, lambda: fail)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()
    assert "step 1 could not be saved" in caplog.text


def test_the_newest_and_the_best_stay_and_damaged_ones_go(
    store: CheckpointStore, storage: str
) -> None:
    for step, bleu in ((1, 5.0), (2, 9.0), (3, 1.0), (4, 2.0), (5, 3.0)):
        store.save(step, writer(step, bleu))
    for step in (4, 5):
        Path(storage, f"checkpoints/step-{step:08d}/model.safetensors").write_bytes(b"")
    found = store.newest()
    assert (found.step, found.damaged.keys()) == (3, {4, 5})
    with BackgroundSaver(store, 2, 1, found.damaged) as saver:
        saver.save(4, lambda: writer(4, 2.0))
    assert store.steps() == [2, 3, 4]


@contextmanager
def saver_process(url: str) -> Iterator[tuple[BaseProcess, Connection]]:
    """A process that saves for ever, and what it reports; it ends with the block."""
    reports, sender = processes.context().Pipe(duplex=False)
    process = processes.context().Process(target=save_for_ever, args=(url, sender), daemon=True)
    process.start()
    sender.close()
    try:
        yield process, reports
    finally:
        process.kill()
        process.join()


def last_report(reports: Connection) -> int:
    step = 0
    while True:
        try:
            step = reports.recv()
        except EOFError:
            return step


@pytest.mark.parametrize("kills", [5, pytest.param(40, marks=pytest.mark.faults)])
@pytest.mark.parametrize("scheme", ["", "objects://"])
def test_whenever_it_is_killed_the_newest_is_whole_and_none_is_lost(
    scheme: str, kills: int, storage: str
) -> None:
    url, draw, finished = f"{scheme}{storage}", random.Random(1), 0
    store = CheckpointStore(url)
    for _ in range(kills):
        with saver_process(url) as (process, reports):
            assert reports.poll(DEADLINE)
            time.sleep(draw.uniform(0.0, 0.03))  # a moment by chance of those that follow
            process.kill()
            process.join()
            finished, before = max(finished, last_report(reports)), finished
        assert finished > before
        with store.open_newest() as found:
            assert found.step is not None
            assert found.step >= finished
            assert found.folder is not None
            assert step_in(found.folder) == found.step == found.state.step
            assert scheme or not found.damaged  # by renaming there is never a half
    step = store.newest().state.step + 1
    store.save(step, writer(step))
    store.prune(keep_newest=1)
    assert [entry.base_name for entry in list_folder(*filesystem_of(url))] == [f"step-{step:08d}"]


def test_one_that_was_not_scheduled_displaces_none_that_is(storage: str) -> None:
    """The average at the end would else be of others (issue 15, 8)."""
    store = CheckpointStore(storage)
    with BackgroundSaver(store, 2, 0, is_scheduled=lambda step: step % 10 == 0) as saver:
        for step in (10, 20, 23, 25, 30, 31):
            saver.save(step, lambda step=step: writer(step, 1.0))
    assert store.steps() == [20, 30, 31]
