"""Folders on storage that are whole or absent, whoever is killed, and however the power fails.

On a local or mounted file system a folder is written under another name and renamed. An object
store has no renaming: there one file, the seal, is uploaded last and deleted first, and a reader
takes a folder without it for nothing.
"""

import errno
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import psutil
import pyarrow.fs as pafs

SCRATCH = ".writing-"
"""What the names of folders that are still being written begin with."""
_ABANDONED_AFTER = 3600.0
"""Seconds without a change, after which another machine's unfinished folder is taken for dead."""


class Folders(Protocol):
    """Where folders are published and deleted, in one step each as readers see it."""

    def scratch(self) -> AbstractContextManager[Path]:
        """An empty folder to write in, removed afterwards."""

    def publish(self, folder: Path, name: str, seal: str) -> None:
        """Make a scratch folder's child visible as `name`, in place of any that is there."""

    def delete(self, name: str, seal: str) -> None: ...


class LocalFolders:
    """On a file system of this machine, or one that is mounted on it."""

    def __init__(self, root: str) -> None:
        self._root = Path(root)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Those of writers that were killed are removed on the way."""
        self._root.mkdir(parents=True, exist_ok=True)
        for path in self._root.glob(f"{SCRATCH}*"):
            if _is_abandoned(path):
                shutil.rmtree(path, ignore_errors=True)
        prefix = f"{SCRATCH}{platform.node()}-{os.getpid()}-{_birth(os.getpid())}-"
        with tempfile.TemporaryDirectory(dir=self._root, prefix=prefix) as temporary:
            yield Path(temporary)

    # Both are given a seal for object stores; a rename needs none, hence ARG002.
    def publish(self, folder: Path, name: str, seal: str) -> None:  # noqa: ARG002
        """Down to the disk first: after a power cut too, it is there whole or not at all."""
        for path in [*folder.iterdir(), folder]:
            _sync(path)
        target = self._root / name
        if target.exists():
            target.rename(folder.parent / "replaced")
        folder.rename(target)
        _sync(self._root)

    def delete(self, name: str, seal: str) -> None:  # noqa: ARG002
        with self.scratch() as scratch:
            (self._root / name).rename(scratch / name)


class RemoteFolders:
    """On an object store, or whatever else pyarrow or fsspec reach by a URL."""

    def __init__(self, files: pafs.FileSystem, root: str) -> None:
        self._files, self._root = files, root

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="heliograph-") as temporary:
            yield Path(temporary)

    def publish(self, folder: Path, name: str, seal: str) -> None:
        target = f"{self._root}/{name}"
        self.delete(name, seal)  # an earlier attempt's files must not mix with these
        self._files.create_dir(target, recursive=True)
        sealed = (folder / seal).rename(folder.parent / seal)
        self._upload(folder, target)
        self._upload(sealed, f"{target}/{seal}")

    def delete(self, name: str, seal: str) -> None:
        target = f"{self._root}/{name}"
        if self._files.get_file_info(f"{target}/{seal}").type == pafs.FileType.File:
            self._files.delete_file(f"{target}/{seal}")
        # An object store's folder is gone with its last file.
        if self._files.get_file_info(target).type == pafs.FileType.Directory:
            self._files.delete_dir(target)

    def _upload(self, source: Path, target: str) -> None:
        pafs.copy_files(
            str(source),
            target,
            source_filesystem=pafs.LocalFileSystem(),
            destination_filesystem=self._files,
        )


def is_full(error: BaseException) -> bool:
    """Whether a disk or a quota had no room left, whichever library says so."""
    numbers = (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, OSError) and error.errno in numbers:
        return True
    return any(f"(os error {number})" in str(error) for number in numbers)


def size_of(folder: Path) -> int:
    """Bytes of all files in it and below."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems know no syncing of a folder.
        if not (path.is_dir() and error.errno in (errno.EINVAL, errno.ENOTSUP, errno.EBADF)):
            raise
    finally:
        os.close(descriptor)


def _is_abandoned(path: Path) -> bool:
    """Whether its writer is dead. Were it alive after all, its writing ends with an error."""
    match path.name.rsplit("-", 3):
        case [machine, pid, birth, _] if machine == f"{SCRATCH}{platform.node()}":
            return _birth(int(pid)) != int(birth)
    try:
        changed = max(each.stat().st_mtime for each in [path, *path.rglob("*")])
    except FileNotFoundError:
        return False  # it is being written, published or removed this moment
    return time.time() - changed > _ABANDONED_AFTER


def _birth(pid: int) -> int | None:
    """When a process began, in seconds since 1970, as its number may be given to another one
    after it; None: there is none."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else round(process.create_time())
    except psutil.NoSuchProcess:
        return None
