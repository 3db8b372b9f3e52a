"""Bytes of a file, unpacked, and lines of it at bounded memory."""

import codecs
import shlex
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
from pyarrow.fs import FileSystem

from pipeline.errors import RequestError
from pipeline.files import COMPRESSIONS

BLOCK_BYTES = 512 * 1024
"""Lines are handed on in lists of about this many bytes: small beside memory, large beside the cost
of a table."""
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # begins as UTF-16's does
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
LONGEST_LINE = 16 * 1024**2
"""Bytes. A longer line is no sentence: most likely the file is of another kind than its suffix."""


def open_file(path: str, filesystem: FileSystem) -> Any:
    """The file's bytes, unpacked if its suffix says that it is packed."""
    file = filesystem.open_input_file(path)
    codec = COMPRESSIONS.get(PurePosixPath(path).suffix.lower())
    return file if codec is None else pa.CompressedInputStream(file, codec)


def line_blocks(path: str, filesystem: FileSystem) -> Iterator[list[bytes]]:
    """All lines, each with its line end; only \\n ends a line, and only the last may lack it.

    Raises:
        RequestError: a line is longer than LONGEST_LINE, or the file is UTF-16 or UTF-32.
    """
    count, rest = 0, b""
    with open_file(path, filesystem) as file:
        while block := file.read(BLOCK_BYTES):
            if not count and not rest:
                check_encoding(block, path)
            lines = (rest + block).split(b"\n")
            rest = lines.pop()
            for number, line in enumerate((*lines, rest), count + 1):
                if len(line) > LONGEST_LINE:
                    raise line_too_long(path, number)
            count += len(lines)
            if lines:
                yield [line + b"\n" for line in lines]
    if rest:
        yield [rest]


def check_encoding(beginning: bytes, path: str) -> None:
    """RequestError for text whose first bytes say that it is in another encoding than UTF-8."""
    for mark, name in _MARKS.items():
        if beginning.startswith(mark):
            raise RequestError(
                f"{path!r} is {name}, and what is read is UTF-8: "
                f"iconv -f {name} -t UTF-8 {shlex.quote(path)} > FILE"
            )


def line_too_long(path: str, number: int) -> RequestError:
    """The error for a line above LONGEST_LINE; `number` counts from 1."""
    return RequestError(
        f"{path!r} line {number} is longer than {LONGEST_LINE // 1024**2} MiB: is the file what "
        "its suffix says, with a line per row?"
    )
