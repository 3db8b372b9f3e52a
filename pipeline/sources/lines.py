"""Bytes of a file, unpacked, and lines of it at bounded memory."""

import codecs
import re
import shlex
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
from pyarrow.fs import FileSystem

from heliograph.pipeline.request.errors import RequestError

COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}
"""Of text files, by the last suffix."""
NOT_UNPACKED = (".xz", ".zip", ".7z", ".tar", ".tgz", ".rar", ".lzma", ".br")
AGAIN = "download or write it again"
BLOCK_BYTES = 512 * 1024
"""Lines are handed on in lists of about this many bytes: small beside memory, large beside the cost
of a table."""
_BEGINNING_BYTES = 64 * 1024  # enough to see how a table's rows end
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # begins as UTF-16's does
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_LONE_RETURN = re.compile(rb"\r(?!\n)")
LONGEST_LINE = 16 * 1024**2
"""Bytes. A longer line is no sentence: most likely the file is of another kind than its suffix."""


def open_file(path: str, filesystem: FileSystem) -> Any:
    """The file's bytes, unpacked if its suffix says that it is packed."""
    file = filesystem.open_input_file(path)
    codec = COMPRESSIONS.get(PurePosixPath(path).suffix.lower())
    return file if codec is None else pa.CompressedInputStream(file, codec)


def open_table(path: str, filesystem: FileSystem, *, quotes: bool) -> Any:
    """The bytes of a CSV or TSV file as pyarrow's reader must have them; None: it is empty.

    To that reader a lone \\r ends a row, and what stands behind it is one of its own: the half of a
    pair. Here it is a space, as cleaning makes it, unless it stands between quotation marks or the
    file's rows have no other end.

    Raises:
        RequestError: the file is UTF-16 or UTF-32.
    """
    with open_file(path, filesystem) as file:
        beginning = file.read(_BEGINNING_BYTES)
    if not beginning:
        return None
    check_encoding(beginning, path)
    file = open_file(path, filesystem)
    return pa.TransformInputStream(file, LoneReturns(quotes)) if b"\n" in beginning else file


class LoneReturns:
    """Makes each lone \\r outside of quotation marks, if these have a meaning, a space.

    Called with the blocks of a file in their order, and at its end with an empty one.
    """

    def __init__(self, quotes: bool) -> None:
        self._quotes, self._is_quoted, self._held = quotes, False, b""

    def __call__(self, block: bytes) -> bytes:
        text = self._held + bytes(block)
        self._held = b"\r" if block and text.endswith(b"\r") else b""  # the next block may say
        text = text.removesuffix(self._held)
        was_quoted = self._is_quoted
        if self._quotes:
            self._is_quoted ^= text.count(b'"') % 2 == 1
        if text.count(b"\r") == text.count(b"\r\n"):
            return text
        parts = text.split(b'"') if self._quotes else [text]
        for number in range(int(was_quoted), len(parts), 2):
            parts[number] = _LONE_RETURN.sub(b" ", parts[number])
        return b'"'.join(parts)


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
