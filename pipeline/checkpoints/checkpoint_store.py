"""A job's checkpoints on storage: whole or absent, and a damaged one falls back to the one before.

`checksums.json` is written last and names the SHA-256 of every other file: a folder without it, or
with a file that differs, is no checkpoint.

This is our own store rather than `ray.train.report(checkpoint=…)` because the position is needed
before the workers start, by whoever builds the stream of batches, and because a damaged checkpoint
must fall back to the one before.
"""

import hashlib
import json
import logging
import math
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow.fs as pafs

from heliograph.pipeline.checkpoints.training_state import TrainingState
from heliograph.pipeline.request.errors import RequestError, one_line
from heliograph.pipeline.storage.filesystems import filesystem_of
from heliograph.pipeline.storage.folders import (
    Folders,
    LocalFolders,
    RemoteFolders,
    is_full,
    size_of,
)
from heliograph.pipeline.storage.listing import list_folder

logger = logging.getLogger(__name__)

CHECKSUMS, STATE = "checksums.json", "state.json"


class StorageFull(OSError):
    """There was no room for a checkpoint; those before it are untouched."""


class Damaged(OSError):
    """A checkpoint's file is not what was written."""


@dataclass(frozen=True)
class Found:
    """The newest sound checkpoint, and what was passed over on the way to it."""

    step: int | None
    """None: there is no sound checkpoint."""
    state: TrainingState
    """The initial one where there is no checkpoint."""
    folder: Path | None
    """Its files; None where there is no checkpoint, or they were not asked for."""
    damaged: dict[int, str]
    """Newer steps whose checkpoint is damaged or unfinished, and what is wrong with it."""

    def warnings(self) -> list[str]:
        """What the user must hear: a line for each checkpoint that was passed over."""
        instead = f"going on from step {self.step}" if self.step is not None else "starting anew"
        return [
            f"the checkpoint of step {step} is damaged and not used ({reason}); {instead}"
            for step, reason in self.damaged.items()
        ]


class CheckpointStore:
    """A job's checkpoints, one folder a step, on a local path or any URL that `files` opens.

    One process at a time saves and prunes; any number may read meanwhile.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._files, self._root = filesystem_of(url)
        self._local = isinstance(self._files, pafs.LocalFileSystem)
        self._folders: Folders = (
            LocalFolders(self._root) if self._local else RemoteFolders(self._files, self._root)
        )

    def check_writable(self) -> None:
        """Write a small file and delete it.

        Raises:
            RequestError: that could not be done; it names the storage and the reason.
        """
        try:
            with self._folders.scratch() as scratch:
                folder = scratch / "probe"
                folder.mkdir()
                (folder / CHECKSUMS).write_text("{}", encoding="utf-8")
                self._folders.publish(folder, ".probe", CHECKSUMS)
            self._folders.delete(".probe", CHECKSUMS)
        except Exception as error:  # each file system's client has exceptions of its own
            raise RequestError(
                f"checkpoints cannot be written to {self._url!r}: {one_line(error)}. Set storage "
                "to a folder or URL that every node can write to"
            ) from error

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """Publish what `write` puts into a fresh folder. Nothing is visible until all of it is.

        Raises:
            StorageFull: there was no room.
            OSError: it could not be written, for any other reason.
        """
        written = 0
        try:
            with self._folders.scratch() as scratch:
                folder = scratch / "checkpoint"
                folder.mkdir()
                try:
                    write(folder)
                    sums = {path.name: _sha256(path) for path in sorted(folder.iterdir())}
                    (folder / CHECKSUMS).write_text(json.dumps(sums, indent=2), encoding="utf-8")
                    self._folders.publish(folder, _name(step), CHECKSUMS)
                finally:
                    written = size_of(scratch)
        except Exception as error:
            if is_full(error):
                raise StorageFull(self._no_room(step, written)) from error
            raise OSError(
                f"the checkpoint of step {step} could not be saved to {self._url!r}: "
                f"{one_line(error)}"
            ) from error

    def steps(self) -> list[int]:
        """The steps that have a finished checkpoint, ascending; its files are not checked here."""
        steps, before = self._begun(), None
        while steps != before:  # else one that was pruned meanwhile may have a successor
            infos = self._files.get_file_info([f"{self._path(step)}/{CHECKSUMS}" for step in steps])
            before, steps = steps, self._begun()
        return [s for s, i in zip(steps, infos, strict=True) if i.type == pafs.FileType.File]

    def best(self, count: int | None = None) -> list[int]:
        """The steps of the best checkpoints by their validations, best first, of equals the
        earlier. None: of all of them.

        Those that were taken without a validation, or whose loss is no number, are not among them.
        """
        scores = []
        for step in self.steps():
            try:
                validation = TrainingState.from_json(self._read(f"{_name(step)}/{STATE}")).latest
            except (FileNotFoundError, ValueError):
                continue  # damaged: `newest` says so when it matters
            if validation is None or validation.step != step or not math.isfinite(validation.loss):
                continue
            scores.append((-validation.score, step))
        return [step for _, step in sorted(scores)[:count]]

    def prune(
        self, keep_newest: int, keep_also: Collection[int] = (), damaged: Collection[int] = ()
    ) -> None:
        """Delete all but the newest `keep_newest` checkpoints and those of the steps named.

        Neither unfinished ones nor those that are known as `damaged` are counted or kept.
        """
        sound = [step for step in self.steps() if step not in damaged]
        kept = {*sound[-keep_newest:], *keep_also} - {*damaged}
        for step in self._begun():
            if step not in kept:
                self._folders.delete(_name(step), CHECKSUMS)

    # --- Reading --------------------------------------------------------------------------------

    def newest(self) -> Found:
        """The newest sound checkpoint, checked where it lies: no file is copied.

        Raises:
            OSError: the storage cannot be reached, which is no sign of damage.
        """
        return self._search(self._verify)

    @contextmanager
    def open_newest(self) -> Iterator[Found]:
        """As `newest`, with its files: where they lie if that is local, else a copy of them that
        is deleted afterwards."""
        with tempfile.TemporaryDirectory(prefix="heliograph-") as temporary:

            def bring(step: int) -> Path:
                if not self._local:
                    return self.fetch(step, Path(temporary) / _name(step))
                self._verify(step)
                return Path(self._path(step))

            yield self._search(bring)

    def damage(self, step: int) -> str | None:
        """What is wrong with the checkpoint of `step`, if something is.

        Raises:
            OSError: the storage cannot be reached.
        """
        try:
            self._verify(step)
        except (OSError, ValueError) as error:
            if not self._is_damage(error):
                raise
            return one_line(error)
        return None

    def newest_state(self) -> TrainingState:
        """The state of the newest sound checkpoint; the initial state where there is none."""
        return self.newest().state

    def fetch(self, step: int, folder: Path) -> Path:
        """Copy the checkpoint of `step` into `folder` and check every file.

        Raises:
            OSError: a file is missing or differs from its checksum.
        """
        folder.mkdir(parents=True, exist_ok=True)
        pafs.copy_files(
            self._path(step),
            str(folder),
            source_filesystem=self._files,
            destination_filesystem=pafs.LocalFileSystem(),
        )
        verify(folder)
        return folder

    def _search(self, bring: Callable[[int], Path | None]) -> Found:
        """The newest step that `bring` brings, past those that it finds damaged."""
        damaged: dict[int, str] = {}
        begun = self._begun()
        for step in reversed(begun):
            try:
                folder = bring(step)
                state = self._read(f"{_name(step)}/{STATE}")
            except (OSError, ValueError) as error:
                if self._begun() != begun:  # it may have been pruned: there are newer ones
                    return self._search(bring)
                if not self._is_damage(error):
                    raise
                damaged[step] = one_line(error)
                continue
            return self._told(Found(step, TrainingState.from_json(state), folder, damaged))
        return self._told(Found(None, TrainingState(), None, damaged))

    def _is_damage(self, error: Exception) -> bool:
        """Not the loss of a connection: going back for that would lose steps for nothing."""
        if isinstance(error, RequestError):  # by which `files` says that the other end is gone
            return False
        return self._local or isinstance(error, Damaged | FileNotFoundError | ValueError)

    def _told(self, found: Found) -> Found:
        for warning in found.warnings():
            logger.error("%s: %s", self._url, warning)
        return found

    def _verify(self, step: int) -> None:
        _check(self._read(f"{_name(step)}/{CHECKSUMS}"), lambda name: self._digest(step, name))

    def _digest(self, step: int, name: str) -> str:
        with self._files.open_input_stream(f"{self._path(step)}/{name}") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _read(self, path: str) -> str:
        with self._files.open_input_stream(f"{self._root}/{path}") as file:
            return str(file.read(), encoding="utf-8")

    def _begun(self) -> list[int]:
        """The steps that have a folder, ascending: finished, unfinished or damaged."""
        names = [entry.base_name for entry in list_folder(self._files, self._root)]
        found = (name.removeprefix("step-") for name in names if name.startswith("step-"))
        return sorted(int(number) for number in found if number.isdigit())

    def _no_room(self, step: int, written: int) -> str:
        """What to say once the half that was written is gone again."""
        there = Path(self._root if self._local else tempfile.gettempdir())
        free = shutil.disk_usage(next(p for p in [there, *there.parents] if p.exists())).free
        where = self._url if self._local else f"{there} (for the upload to {self._url})"
        before = sum(
            info.size or 0
            for each in self.steps()[-1:]
            for info in list_folder(self._files, self._path(each))
        )
        advice = "lower train.keep_checkpoints or set storage" if self._local else "set TMPDIR"
        return (
            f"{where} is full: the checkpoint of step {step} needs at least "
            f"{max(before, written) / 1e6:,.1f} MB, and {free / 1e6:,.1f} MB are free. Those "
            f"before it are kept. Free some space, or {advice} to a larger place; the same command "
            "then goes on from the newest checkpoint"
        )

    def _path(self, step: int) -> str:
        return f"{self._root}/{_name(step)}"


def verify(folder: Path) -> None:
    """Raises OSError or ValueError when a file of the checkpoint is not what was written."""
    sums = (folder / CHECKSUMS).read_text(encoding="utf-8")
    _check(sums, lambda name: _sha256(folder / name))


def _check(sums: str, digest: Callable[[str], str]) -> None:
    for name, expected in json.loads(sums).items():
        if digest(name) != expected:
            raise Damaged(f"{name} differs from its checksum")


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
