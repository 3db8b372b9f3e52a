"""Which of a job's starts may write to its storage: the newest, and of its workers the newest.

A worker that was cut off from the others is replaced, but may live on and still reach the storage.
So may a whole job that is started a second time elsewhere: the first one ends then, rather than
that the two of them take the folder from each other again and again.
"""

import secrets
import time

import pyarrow.fs as pafs

from heliograph.pipeline.request.errors import JobStopped
from heliograph.pipeline.storage.filesystems import filesystem_of

OWNER = "owner"
READS = 20
"""Of a file that is empty, because somebody is just writing it."""


class Superseded(OSError):
    """Another worker has taken over; what this one would write is not wanted any more."""


def claim(folder: str) -> str:
    """Make a new start of the job the one that its folder belongs to; the start's name.

    Raises:
        OSError: the folder cannot be written to.
    """
    owner, start = _Owner(folder), secrets.token_hex(8)
    owner.write(start, "")
    return start


class Fence:
    """Makes this process the one that may write to the folder.

    Args:
        folder: path or URL.
        start: as claimed; "" where there is only one.

    Raises:
        JobStopped: the folder belongs to a later start.
        OSError: it cannot be written to.
    """

    def __init__(self, folder: str, start: str = "") -> None:
        self._owner, self._start, self._name = _Owner(folder), start, secrets.token_hex(8)
        self._check_start(self._owner.read()[0])
        self._owner.write(start, self._name)

    def check(self) -> None:
        """To be called right before anything is written or deleted.

        Raises:
            JobStopped: the job was started again elsewhere.
            Superseded: later workers of this start have taken over.
            OSError: the storage cannot be reached.
        """
        start, name = self._owner.read()
        self._check_start(start)
        if name != self._name:
            raise Superseded(f"{self._owner.path}: other workers go on with this job")

    def _check_start(self, start: str) -> None:
        if start != self._start:
            raise JobStopped(
                f"this job was started again elsewhere, and goes on there ({self._owner.path})"
            )


class _Owner:
    """The file that names the start and the worker that a folder belongs to."""

    def __init__(self, folder: str) -> None:
        self._files, root = filesystem_of(folder)
        self._files.create_dir(root, recursive=True)
        self.path = f"{root}/{OWNER}"

    def write(self, start: str, name: str) -> None:
        with self._files.open_output_stream(self.path) as file:
            file.write(f"{start} {name}".encode())

    def read(self) -> tuple[str, str]:
        """Both "" where nobody was before."""
        if self._files.get_file_info(self.path).type == pafs.FileType.NotFound:
            return "", ""
        text = ""
        for _ in range(READS):
            with self._files.open_input_stream(self.path) as file:
                text = str(file.read(), encoding="utf-8")
            if text:
                break
            time.sleep(0.05)
        start, _, name = text.partition(" ")
        return start, name
