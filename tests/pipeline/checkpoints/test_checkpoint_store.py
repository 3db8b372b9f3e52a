"""Checkpoints are whole or absent, on disks and on object stores, and damage is passed over."""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import fsspec
import pyarrow.fs as pafs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heliograph.pipeline.checkpoints.checkpoint_store import CheckpointStore, verify
from heliograph.pipeline.checkpoints.training_state import TrainingState
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.storage.filesystems import filesystem_of
from tests.pipeline.saving import Objects, step_in, writer


@pytest.fixture(params=["disk", "files by URL", "objects in memory"])
def url(request: pytest.FixtureRequest, storage: str) -> Iterator[str]:
    """A store's place; those by URL are reached and published as an object store is."""
    memory = fsspec.filesystem("memory")
    yield {
        "disk": f"{storage}/checkpoints",
        "files by URL": f"objects://{storage}/checkpoints",
        "objects in memory": "memory://bucket/checkpoints",
    }[request.param]
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


@pytest.fixture
def store(url: str) -> CheckpointStore:
    return CheckpointStore(url)


def overwrite(url: str, path: str, content: bytes) -> None:
    files, root = filesystem_of(url)
    with files.open_output_stream(f"{root}/{path}") as file:
        file.write(content)


def delete(url: str, path: str) -> None:
    files, root = filesystem_of(url)
    files.delete_file(f"{root}/{path}")


def names(url: str) -> list[str]:
    """All that lies in the store, hidden or not."""
    files, root = filesystem_of(url)
    selector = pafs.FileSelector(root, allow_not_found=True)
    return sorted(each.base_name for each in files.get_file_info(selector))


def test_the_newest_is_found(store: CheckpointStore) -> None:
    assert store.steps() == []
    with store.open_newest() as found:
        assert (found.step, found.folder, found.damaged) == (None, None, {})
    assert store.newest_state() == TrainingState()
    for step in (100, 20, 3):
        store.save(step, writer(step))
    assert store.steps() == [3, 20, 100]
    assert store.newest_state().step == 100
    with store.open_newest() as found:
        assert found.step == 100
        assert found.folder is not None
        assert step_in(found.folder) == 100
    assert store.steps() == [3, 20, 100]


def test_a_step_saved_again_is_the_later_one(store: CheckpointStore, url: str) -> None:
    store.save(1, lambda folder: (folder / "left over").write_text("1"))
    store.save(1, writer(1, bleu=2.0))
    assert store.best(1) == [1]
    with store.open_newest() as found:
        assert found.folder is not None
        assert not (found.folder / "left over").exists()
    assert names(url) == ["step-00000001"]


DAMAGE = {
    "changed": "model.safetensors differs",
    "removed": "state.json",
    "no checksums": "checksums.json",
    "cut off": "differs",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_one_falls_back_loudly(
    store: CheckpointStore, url: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2):
        store.save(step, writer(step))
    if damage == "changed":
        overwrite(url, "step-00000002/model.safetensors", b"9" * 2_000_000)
    elif damage == "cut off":
        overwrite(url, "step-00000002/model.safetensors", b"")
    elif damage == "removed":
        delete(url, "step-00000002/state.json")
    else:
        delete(url, "step-00000002/checksums.json")
    with caplog.at_level(logging.ERROR), store.open_newest() as found:
        assert found.step == 1
        assert found.folder is not None
        assert step_in(found.folder) == 1
    assert DAMAGE[damage] in found.damaged[2]
    (warning,) = found.warnings()
    assert warning.startswith("the checkpoint of step 2 is damaged and not used (")
    assert warning.endswith("); going on from step 1")
    assert warning in caplog.text
    assert store.newest().damaged.keys() == {2}
    assert store.newest_state().step == 1


def test_where_all_are_damaged_it_starts_anew_and_says_so(store: CheckpointStore, url: str) -> None:
    for step in (1, 2):
        store.save(step, writer(step))
        overwrite(url, f"step-{step:08d}/state.json", b"{}")
    found = store.newest()
    assert (found.step, list(found.damaged)) == (None, [2, 1])
    assert found.state == TrainingState()
    assert all(warning.endswith("; starting anew") for warning in found.warnings())


@given(st.data())
@settings(max_examples=50)
def test_no_changed_byte_goes_unseen(data: st.DataObject) -> None:
    with TemporaryDirectory() as storage:
        store = CheckpointStore(storage)
        for step in (1, 2):
            store.save(step, writer(step))
        newest = Path(storage) / "step-00000002"
        file = newest / data.draw(st.sampled_from(sorted(path.name for path in newest.iterdir())))
        content = bytearray(file.read_bytes())
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= data.draw(st.integers(1, 255))
        file.write_bytes(content)
        with store.open_newest() as found:
            # White space of the checksums may change without harm.
            assert found.step == 1 or file.name == "checksums.json"
            assert found.folder is not None
            assert step_in(found.folder) == found.step == found.state.step


def test_a_lost_connection_is_no_damage(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CheckpointStore(f"objects://{storage}/checkpoints")
    for step in (1, 2):
        store.save(step, writer(step))

    def fail(*_: object, **__: object) -> None:
        raise ConnectionResetError("the other end hung up")

    monkeypatch.setattr(Objects, "open", fail)
    with pytest.raises(RequestError, match="the connection was lost"):
        store.newest()


def test_a_write_that_fails_leaves_nothing(store: CheckpointStore, url: str) -> None:
    def fail(folder: Path) -> None:
        (folder / "model.json").write_text("half")
        raise OSError("the disk is on fire")

    store.save(1, writer(1))
    with pytest.raises(OSError, match=r"checkpoint of step 2 could not be saved to '.*on fire"):
        store.save(2, fail)
    assert names(url) == ["step-00000001"]


def test_the_newest_and_the_best_are_kept(store: CheckpointStore, url: str) -> None:
    for step, bleu in enumerate([7.0, None, 9.0, 9.0, 1.0, None, 2.0], start=1):
        store.save(step, writer(step, bleu))
    assert store.best(9) == [3, 4, 1, 7, 5]  # of equals the earlier, as training chooses
    store.prune(keep_newest=2, keep_also=store.best(2))
    assert store.steps() == [3, 4, 6, 7]
    store.prune(keep_newest=1)
    assert names(url) == ["step-00000007"]


def test_the_newest_sound_one_is_never_pruned(store: CheckpointStore, url: str) -> None:
    for step in (1, 2, 3, 4):
        store.save(step, writer(step))
    overwrite(url, "step-00000003/state.json", b"")
    delete(url, "step-00000004/checksums.json")  # as an upload leaves it that is cut off
    found = store.newest()
    store.prune(keep_newest=1, damaged=found.damaged)
    assert names(url) == ["step-00000002"]
    assert store.newest().step == 2


def test_what_is_pruned_while_it_is_read_is_no_damage(store: CheckpointStore) -> None:
    for step in (1, 2):
        store.save(step, writer(step))
    other, original = CheckpointStore(store._url), store._verify

    def prune_then_verify(step: int) -> None:
        if step == 2:
            other.save(3, writer(3))
            other.prune(keep_newest=1)
        original(step)

    store._verify = prune_then_verify  # type: ignore[method-assign]
    found = store.newest()
    assert (found.step, found.damaged) == (3, {})


def test_verify_names_the_file(store: CheckpointStore, tmp_path: Path) -> None:
    store.save(1, writer(1))
    verify(store.fetch(1, tmp_path / "copy"))
    (tmp_path / "copy" / "state.json").write_text("2")
    with pytest.raises(OSError, match=r"state\.json differs"):
        verify(tmp_path / "copy")


def test_readers_beside_a_writer_find_whole_ones_only(storage: str) -> None:
    store, seen, stop = CheckpointStore(storage), [], threading.Event()

    def read() -> None:
        while not stop.is_set():
            found = CheckpointStore(storage).newest()
            seen.append((found.step or 0, found.damaged))

    reader = threading.Thread(target=read)
    reader.start()
    for step in range(1, 40):
        store.save(step, writer(step))
        store.prune(keep_newest=1)
    stop.set()
    reader.join()
    assert {str(damaged) for _, damaged in seen} == {"{}"}
    assert [step for step, _ in seen] == sorted(step for step, _ in seen)


def test_storage_that_takes_nothing_is_a_request_error(
    store: CheckpointStore, url: str, tmp_path: Path
) -> None:
    store.check_writable()
    assert names(url) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match=rf"cannot be written to '{tmp_path}/file/x'.*Set stor"):
        CheckpointStore(f"{tmp_path}/file/x").check_writable()
