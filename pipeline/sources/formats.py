"""The formats of files, of which each is known by its suffix, read, and looked through.

A new one is its two functions and its line here. pyarrow and Python read the files: Ray Data's own
readers load a whole text or JSON file at once, guess types from the values ("1984" becomes a
number), and fail on the first row that differs from those before it. What they yield are tables of
`rows.SCHEMA`, streamed: a bad value costs its row, a bad file says what it is.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import PurePosixPath

import pyarrow as pa
from pyarrow.fs import FileSystem

from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.sources.binary_readers import (
    look_at_arrow,
    look_at_parquet,
    parquet_row_groups,
    read_arrow,
    read_parquet,
)
from heliograph.pipeline.sources.lines import AGAIN, BLOCK_BYTES, COMPRESSIONS, LONGEST_LINE
from heliograph.pipeline.sources.rows import Reading, leaves_of
from heliograph.pipeline.sources.text_readers import (
    SIDES,
    look_at_csv,
    look_at_json_lines,
    look_at_text,
    look_at_tsv,
    read_csv,
    read_json_lines,
    read_pair,
    read_tsv,
)


@dataclass(frozen=True)
class Format:
    """A kind of files."""

    name: str
    suffixes: tuple[str, ...]
    read: Callable[[str, FileSystem, Reading], Iterator[pa.Table]]
    """Tables of `rows.SCHEMA`; with all columns, where the reading says so."""
    look: Callable[[str, FileSystem, Reading], Iterator[tuple[pa.Schema, int]]]
    """The columns, and how many rows have them; of some rows after the others, or of all."""
    compressed: bool = True
    """Whether it may be: the suffix is then followed by one of COMPRESSIONS."""
    has_dialects: bool = False
    row_groups: Callable[[str, FileSystem], list[int]] | None = None
    """The bytes of each part that can be read by itself, where a file says at its end what it has;
    `look` then reads no more than that either."""


FORMATS = (
    Format(
        "Parquet",
        (".parquet",),
        read_parquet,
        look_at_parquet,
        compressed=False,
        row_groups=parquet_row_groups,
    ),
    Format("Arrow", (".arrow",), read_arrow, look_at_arrow, compressed=False),
    Format("JSON lines", (".jsonl", ".ndjson", ".json"), read_json_lines, look_at_json_lines),
    Format("CSV", (".csv",), read_csv, look_at_csv, has_dialects=True),
    Format("TSV", (".tsv",), read_tsv, look_at_tsv, has_dialects=True),
)
BY_SUFFIX = {suffix: kind for kind in FORMATS for suffix in kind.suffixes}


def format_of(path: str) -> Format:
    """By the suffix; RequestError if files like this are not read."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(path).suffixes]
    is_compressed = bool(suffixes) and suffixes[-1] in COMPRESSIONS
    suffix = "".join(suffixes[-2:-1] if is_compressed else suffixes[-1:])
    found = BY_SUFFIX.get(suffix)
    if found is None or (is_compressed and not found.compressed):
        names = ", ".join(kind.name for kind in FORMATS)
        raise RequestError(
            f"{path!r}: cannot read files like this; what is read is {names}: "
            f"{', '.join(BY_SUFFIX)}. Other formats that `datasets` knows: "
            "{stream: FORMAT, files: …}"
        )
    return found


def is_readable(path: str) -> bool:
    """By its suffix."""
    try:
        return bool(format_of(path))
    except RequestError:
        return False


def read_entry(
    entry: tuple[str, ...], filesystem: FileSystem, reading: Reading
) -> Iterator[pa.Table]:
    """The tables of one file or pair of files.

    Raises:
        RequestError: a column is not there, a file is damaged, cut off or not what its suffix says,
            its connection was lost, a line is too long, or a pair of files differs in its number of
            lines.
    """
    with _in_words(entry):
        if len(entry) == 2:
            yield from read_pair(entry, filesystem, reading)
        else:
            yield from format_of(entry[0]).read(entry[0], filesystem, reading)


def look_at_entry(
    entry: tuple[str, ...], filesystem: FileSystem, reading: Reading
) -> Iterator[tuple[pa.Schema, int]]:
    """Its columns and rows, some after the other. Raises as `read_entry`, for columns that are not
    asked for, too."""
    with _in_words(entry):
        if len(entry) == 2:
            yield from look_at_text(SIDES, read_pair(entry, filesystem, reading))
        else:
            yield from format_of(entry[0]).look(entry[0], filesystem, reading)


def check_entry(entry: tuple[str, ...], filesystem: FileSystem, reading: Reading) -> bool:
    """Whether there are rows, looking at the beginning or the end only. Raises as `read_entry`."""
    if len(entry) == 1 and format_of(entry[0]).row_groups is not None:
        ((schema, rows),) = look_at_entry(entry, filesystem, reading)
        leaves_of(schema, reading.columns, entry[0])
        return bool(rows)
    for block in (BLOCK_BYTES, LONGEST_LINE):
        tables = read_entry(entry, filesystem, replace(reading, csv_block=block))
        try:
            # Of a pair the second as well, which shows whether two short files end at one line.
            return bool(sum(table.num_rows for table in islice(tables, len(entry))))
        except RequestError:
            if block == LONGEST_LINE:
                raise
    raise AssertionError("the last block size returns or raises")


@contextmanager
def _in_words(entry: tuple[str, ...]) -> Iterator[None]:
    """What pyarrow raises while it reads these files, as a RequestError that names them."""
    try:
        yield
    except (pa.ArrowException, OSError, EOFError) as error:
        raise _unreadable(" or ".join(repr(path) for path in entry), error) from error


def _unreadable(names: str, error: Exception) -> RequestError:
    """What to say of an error that pyarrow met while it read."""
    reason = " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno is not None:  # of the file system, not of content
        return RequestError(f"{names} cannot be read: {error.strerror or reason}")
    if "Truncated compressed stream" in reason:
        return RequestError(f"{names} was cut off: its compressed data has no end; {AGAIN}")
    return RequestError(f"{names} is damaged or not what its suffix says: {reason}; {AGAIN}")
