"""Files far away, through fsspec: what goes wrong on the way is said in words.

A read is tried again by the file systems themselves (the hub's: five more times within half a
minute). What is left then is a `RequestError` that names the file, as is a file that ends before
the size that was announced, which would otherwise pass for a short one.
"""

from typing import Any

from pyarrow import PythonFile
from pyarrow.fs import FSSpecHandler

from heliograph.pipeline.request.errors import RequestError


class RemoteFiles(FSSpecHandler):  # type: ignore[misc]  # pyarrow has no types
    """An fsspec file system for pyarrow; its files raise RequestError when they cannot be read."""

    def open_input_stream(self, path: str) -> PythonFile:
        return self.open_input_file(path)

    def open_input_file(self, path: str) -> PythonFile:
        try:
            file = self.fs.open(path, mode="rb")
        except FileNotFoundError:
            raise
        except Exception as error:
            raise connection_lost(path, error) from error
        return PythonFile(_RemoteFile(file, path), mode="r")


def connection_lost(path: str, error: BaseException) -> RequestError:
    """The error for a file whose reading ended with `error`, whatever its HTTP client raised."""
    reason = " ".join(str(error).split())
    return RequestError(
        f"{path!r}: the connection was lost while it was read, and trying again did not help "
        f"({type(error).__name__}: {reason}). Nothing is wrong with the request: the same command "
        "takes it up again once the network is back"
    )


class _RemoteFile:
    """What `PythonFile` asks of a file."""

    def __init__(self, file: Any, path: str) -> None:
        self._file, self._path = file, path

    def read(self, count: int = -1) -> bytes:
        start, size = self._file.tell(), self._file.size
        try:
            content = bytes(self._file.read(count))
        except Exception as error:  # each file system's HTTP client has exceptions of its own
            raise connection_lost(self._path, error) from error
        if size is not None:
            rest = max(0, size - start)
            if len(content) < (rest if count < 0 else min(count, rest)):
                raise RequestError(
                    f"{self._path!r} ends after {start + len(content)} of the {size} bytes that "
                    "were announced: it was cut off where it is stored, or on the way. Start the "
                    "same command again; if that does not help, the file must be written again"
                )
        return content

    def seek(self, position: int, whence: int = 0) -> int:
        return int(self._file.seek(position, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        self._file.close()

    @property
    def closed(self) -> bool:
        return bool(self._file.closed)
