"""What killed writers left is removed, what living ones write is not; full and read-only disks."""

import os
import platform
import time
from pathlib import Path

import psutil
import pytest

from heliograph.pipeline.storage.folders import LocalFolders
from tests.pipeline.small_disk import in_small_disk

ROOM = 60.0  # seconds that clocks may disagree by


@pytest.fixture
def folders(tmp_path: Path) -> LocalFolders:
    return LocalFolders(str(tmp_path))


def unfinished(root: Path, machine: str, pid: int, birth: float, age: float = 0.0) -> Path:
    """A folder as a writer leaves it that is killed."""
    folder = root / f".writing-{machine}-{pid}-{birth:.0f}-abc_12"
    (folder / "checkpoint").mkdir(parents=True)
    (folder / "checkpoint" / "half").write_text("half")
    for path in (folder / "checkpoint" / "half", folder / "checkpoint", folder):
        os.utime(path, (time.time() - age, time.time() - age))
    return folder


def test_what_killed_writers_left_is_removed(folders: LocalFolders, tmp_path: Path) -> None:
    here, me = platform.node(), os.getpid()
    birth = psutil.Process(me).create_time()
    nobody = next(pid for pid in range(2**22 - 1, 1, -1) if not psutil.pid_exists(pid))
    dead = [
        unfinished(tmp_path, here, nobody, birth),
        unfinished(tmp_path, here, me, birth - 10 * ROOM),  # the number went to another process
        unfinished(tmp_path, "another-machine", me, birth, age=7200),
    ]
    alive = [
        unfinished(tmp_path, here, 1, psutil.Process(1).create_time(), age=7200),
        unfinished(tmp_path, "another-machine", nobody, birth),
    ]
    with folders.scratch(), folders.scratch():  # two of its own at once, as well
        assert [path.exists() for path in dead] == [False] * 3
    assert sorted(tmp_path.iterdir()) == sorted(alive)


def test_a_folder_is_replaced_in_one_step(folders: LocalFolders, tmp_path: Path) -> None:
    for text in ("first", "second"):
        with folders.scratch() as scratch:
            (scratch / "new").mkdir()
            (scratch / "new" / text).write_text(text)
            folders.publish(scratch / "new", "folder", seal=text)
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["second"]
    assert os.listdir(tmp_path) == ["folder"]


def test_a_disk_that_fills_up_and_one_that_is_read_only(tmp_path: Path) -> None:
    result = in_small_disk(tmp_path)
    for part in (
        f"{tmp_path}/checkpoints is full: the checkpoint of step 2 needs at least 4.0 MB, and 2.4 ",
        "Those before it are kept. Free some space, or lower train.keep_checkpoints or set storage",
    ):
        assert part in result["full"]
    assert result["left by it"] == ["step-00000001"]
    assert result["saved once there was room"] == 2
    assert f"cannot be written to '{tmp_path}/checkpoints'" in result["read-only"]
    assert "Read-only file system" in result["read-only"]
