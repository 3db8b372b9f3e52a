"""Metrics on disk while the tracking server is away: a folder of whole segments, in order."""

import json
import logging
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from pyarrow.fs import FileSystem, FileType

from heliograph.pipeline.storage.filesystems import filesystem_of
from heliograph.pipeline.storage.listing import list_folder, write_whole

logger = logging.getLogger(__name__)

SUFFIX = ".json"


class Measurement(NamedTuple):
    """One value of one metric."""

    key: str
    value: float
    timestamp: int
    """Milliseconds since 1970."""
    step: int


@dataclass(frozen=True)
class Segment:
    """What one file of a spool holds."""

    run_id: str
    measurements: list[Measurement]


class Spool:
    """The segments below a path or URL. One process writes it, another may deliver it meanwhile."""

    def __init__(self, location: str) -> None:
        self._files, self._root = filesystem_of(location)
        self._next: int | None = None

    def append(self, segment: Segment) -> str:
        """Write a segment after all that are there, whole or not at all; its name.

        Raises:
            OSError: the disk is full, or cannot be written.
        """
        if self._next is None:
            self._next = 1 + max((int(name.split("-")[0]) for name in self.names()), default=0)
        # A number can be taken twice, when a process cut off from the others still writes; the
        # random part keeps one from replacing the other.
        name = f"{self._next:010d}-{secrets.token_hex(4)}{SUFFIX}"
        content = {"run_id": segment.run_id, "measurements": segment.measurements}
        write_whole(self._files, f"{self._root}/{name}", json.dumps(content).encode())
        self._next += 1
        return name

    def names(self) -> list[str]:
        """The segments' names, in the order in which they were written."""
        return names_in(self._files, self._root)

    def read(self, name: str) -> Segment | None:
        """A segment; None where it is gone, delivered by another process, or cannot be read."""
        path = f"{self._root}/{name}"
        try:
            with self._files.open_input_stream(path) as file:
                content = json.loads(file.read())
            measurements = [Measurement(*each) for each in content["measurements"]]
            return Segment(content["run_id"], measurements)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            logger.error("metrics in %s are damaged and set aside: %s", path, error)
            self._files.move(path, f"{path}.damaged")
            return None

    def remove(self, name: str) -> None:
        """Delete a segment, if another process has not."""
        with suppress(FileNotFoundError):
            self._files.delete_file(f"{self._root}/{name}")


def spools_below(location: str) -> Iterator[tuple[str, Spool]]:
    """Every spool in a folder of them, with its name."""
    files, root = filesystem_of(location)
    found = list_folder(files, root)
    for name in sorted(entry.base_name for entry in found if entry.type == FileType.Directory):
        yield name, Spool(f"{location}/{name}")


def names_in(files: FileSystem, folder: str) -> list[str]:
    """The whole files of a folder that `write_whole` filled, sorted."""
    found = list_folder(files, folder)
    names = (entry.base_name for entry in found if entry.type == FileType.File)
    return sorted(name for name in names if name.endswith(SUFFIX) and not name.startswith("."))
