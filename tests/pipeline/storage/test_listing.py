"""A folder is listed, though others make and delete it at that very moment."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from pyarrow.fs import FileSelector, FSSpecHandler, PyFileSystem
from pyarrow.fs import LocalFileSystem as LocalFiles

from heliograph.pipeline.checkpoints.checkpoint_store import CHECKSUMS, STATE, CheckpointStore
from heliograph.pipeline.checkpoints.training_state import TrainingState
from heliograph.pipeline.storage.listing import LOOKS, list_folder, write_whole

LISTINGS = 20_000


@contextmanager
def meanwhile(change: Callable[[], None]) -> Iterator[None]:
    """Another thread makes the change again and again."""
    stop = threading.Event()

    def repeat() -> None:
        while not stop.is_set():
            change()

    changes = threading.Thread(target=repeat)
    changes.start()
    try:
        yield
    finally:
        stop.set()
        changes.join()


@pytest.fixture
def coming_and_going(tmp_path: Path) -> Iterator[Path]:
    """A folder of one folder that is made and deleted, until the test ends."""
    folder = tmp_path / "checkpoints"

    def come_and_go() -> None:
        (folder / "step-00000001").mkdir(parents=True)
        shutil.rmtree(folder)

    with meanwhile(come_and_go):
        yield folder


def test_folders_that_come_and_go_are_there_or_not(coming_and_going: Path) -> None:
    """With pyarrow's own listing this fails."""
    files, seen = LocalFiles(), set[tuple[str, ...]]()
    for _ in range(LISTINGS):
        names = tuple(info.base_name for info in list_folder(files, str(coming_and_going)))
        seen.add(names)
        found = list_folder(files, str(coming_and_going), recursive=True)
        assert {info.base_name for info in found} <= {"step-00000001"}
    assert seen == {(), ("step-00000001",)}


@pytest.fixture
def replaced(tmp_path: Path) -> Iterator[Path]:
    """A folder of one folder, or two, of which the older is deleted, until the test ends."""
    folder, numbers = tmp_path / "checkpoints", count()
    (folder / "0").mkdir(parents=True)

    def replace() -> None:
        number = next(numbers)
        (folder / str(number + 1)).mkdir()
        (folder / str(number)).rmdir()

    with meanwhile(replace):
        yield folder


def test_of_folders_that_replace_one_another_there_always_is_one(replaced: Path) -> None:
    """pyarrow's own listing leaves out the only one, when that is gone at its second look."""
    files = LocalFiles()
    newest = [
        max(int(info.base_name) for info in list_folder(files, str(replaced)))
        for _ in range(LISTINGS)
    ]
    assert newest == sorted(newest)
    assert newest[0] < newest[-1]


def test_a_store_that_is_read_while_its_folder_is_made(coming_and_going: Path) -> None:
    store = CheckpointStore(str(coming_and_going))
    assert {tuple(store.steps()) for _ in range(LISTINGS // 10)} == {()}  # none is finished


@pytest.fixture(params=["gone", "half deleted"])
def replaced_once(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> CheckpointStore:
    """Whose only checkpoint, of step 1, is replaced right after the folder was listed. An object
    store deletes file by file, the seal first: for a moment the folder is still there."""
    store, original = CheckpointStore(str(tmp_path)), CheckpointStore._begun
    state = TrainingState().to_json()

    def save(step: int) -> None:
        store.save(step, lambda folder: (folder / STATE).write_text(state) and None)

    def replaced_after(listed: CheckpointStore) -> list[int]:
        begun = original(listed)
        if begun == [1]:
            monkeypatch.setattr(CheckpointStore, "_begun", original)
            save(2)
            if request.param == "gone":
                shutil.rmtree(tmp_path / "step-00000001")
            else:
                (tmp_path / "step-00000001" / CHECKSUMS).unlink()
        return begun

    save(1)
    monkeypatch.setattr(CheckpointStore, "_begun", replaced_after)
    return store


def test_a_store_s_steps_are_those_of_one_moment(replaced_once: CheckpointStore) -> None:
    assert replaced_once.steps() == [2]


def test_what_was_replaced_meanwhile_is_not_damaged(replaced_once: CheckpointStore) -> None:
    found = replaced_once.newest()
    assert (found.step, found.damaged) == (2, {})


class Changing(FSSpecHandler):  # type: ignore[misc]  # pyarrow has no types
    """Each of the first looks meets the folder in the moment in which it is made."""

    def __init__(self, changes: int) -> None:
        super().__init__(fsspec.filesystem("memory"))
        self.changes = changes

    def get_file_info_selector(self, selector: FileSelector) -> object:
        if self.changes:
            self.changes -= 1
            raise FileNotFoundError(selector.base_dir)
        return super().get_file_info_selector(selector)


def test_it_looks_again_and_not_for_ever() -> None:
    assert list_folder(PyFileSystem(Changing(LOOKS - 1)), "nowhere") == []
    with pytest.raises(FileNotFoundError, match="nowhere"):
        list_folder(PyFileSystem(Changing(LOOKS)), "nowhere")


class Remembering(LocalFileSystem):
    """As fsspec's object stores do it: a listing is remembered until it is told to forget."""

    def __init__(self) -> None:
        super().__init__(skip_instance_cache=True)
        self.listings: dict[str, list[dict[str, object]]] = {}

    # As fsspec calls them, hence ARG002.
    def ls(self, path: str, detail: bool = True, **options: object) -> list[dict[str, object]]:  # noqa: ARG002
        if path not in self.listings:
            self.listings[path] = super().ls(path, detail=True, **options)
        return self.listings[path]

    def invalidate_cache(self, path: str | None = None) -> None:  # noqa: ARG002
        self.listings.clear()


def test_what_others_wrote_since_is_seen_though_listings_are_remembered(tmp_path: Path) -> None:
    files = PyFileSystem(FSSpecHandler(Remembering()))
    (tmp_path / "first").touch()
    assert [info.base_name for info in list_folder(files, str(tmp_path))] == ["first"]
    (tmp_path / "second").touch()
    found = list_folder(files, str(tmp_path))
    assert sorted(info.base_name for info in found) == ["first", "second"]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        list_folder(LocalFiles(), str(tmp_path / "file"))


def test_many_may_write_the_same_file_at_once(tmp_path: Path) -> None:
    """Two starts of a job remember the same source: one took the other's temporary file away."""
    path, content = str(tmp_path / "folder" / "file.json"), b"the same"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: write_whole(LocalFiles(), path, content), range(2000)))
    assert Path(path).read_bytes() == content
    assert os.listdir(tmp_path / "folder") == ["file.json"]
