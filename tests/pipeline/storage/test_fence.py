"""Only the newest start of a job writes to its storage."""

from pathlib import Path

import pytest

from heliograph.pipeline.checkpoints.background import BackgroundSaver
from heliograph.pipeline.checkpoints.checkpoint_store import CheckpointStore
from heliograph.pipeline.request.errors import JobStopped
from heliograph.pipeline.storage.fence import Fence, Superseded, claim
from tests.pipeline.saving import writer


def test_the_newest_takes_over(storage: str) -> None:
    first = Fence(storage)
    first.check()
    second = Fence(storage)
    with pytest.raises(Superseded, match="go on with this job"):
        first.check()
    second.check()


def test_a_second_start_ends_the_first_for_good(storage: str) -> None:
    """Neither its worker nor those that Ray Train would start for it take the folder back."""
    first = claim(storage)
    worker = Fence(storage, first)
    worker.check()
    second = claim(storage)
    with pytest.raises(JobStopped, match="started again elsewhere"):
        worker.check()
    with pytest.raises(JobStopped, match="started again elsewhere"):
        Fence(storage, first)
    Fence(storage, second).check()


def test_a_saver_that_was_superseded_neither_saves_nor_prunes(storage: str) -> None:
    store = CheckpointStore(f"{storage}/checkpoints")

    def saver() -> BackgroundSaver:
        return BackgroundSaver(store, 1, 0, check=Fence(storage).check)

    def write_and_lose(folder: Path) -> None:
        writer(8)(folder)
        Fence(storage)

    with saver() as old:
        old.save(4, lambda: writer(4))
        old.save(6, lambda: writer(6))
        old.finish()
    assert store.steps() == [6]
    late = saver()
    late.save(8, lambda: write_and_lose)  # another takes over while it is written
    with pytest.raises(Superseded):
        late.finish()
    assert store.steps() == [6, 8]  # the one that was under way is sound, and nothing was deleted
    stale = saver()
    Fence(storage)
    stale.save(10, lambda: writer(10))
    with pytest.raises(Superseded):
        stale.finish()
    assert store.steps() == [6, 8]
