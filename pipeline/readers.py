"""Files → tables of `rows.SCHEMA`, streamed: a bad value costs its row, a bad file says what it is.

Here pyarrow and Python read the files. Ray Data's own readers load a whole text or JSON file at
once, guess types from the values ("1984" becomes a number), and fail on the first row that differs
from those before it.
"""

import json
from codecs import BOM_UTF8
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from pyarrow.fs import FileSystem

from pipeline.errors import RequestError
from pipeline.files import format_of
from pipeline.lines import BLOCK_BYTES, LONGEST_LINE, line_blocks, open_file
from pipeline.rows import (
    ROWS,
    Columns,
    as_text,
    check_columns,
    check_keys,
    column_of,
    leaves_of,
    ragged_rows,
    table_of,
    table_of_batch,
    table_of_dicts,
)
from pipeline.rows import SCHEMA as SCHEMA

_AGAIN = "download or write it again"
_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"


def read_entry(
    entry: tuple[str, ...],
    filesystem: FileSystem,
    columns: Columns,
    row_groups: range | None = None,
    delimiter: str | None = None,
    csv_block: int = LONGEST_LINE,
) -> Iterator[pa.Table]:
    """The tables of one file or pair of files. `row_groups`: only these of a Parquet file;
    `delimiter`: of a CSV file that has another than the comma; `csv_block`: bytes that are parsed
    at once, of which a row may not have more.

    Raises:
        RequestError: a column is not there, a file is damaged, cut off or not what its suffix says,
            its connection was lost, a line is too long, or a pair of files differs in its number of
            lines.
    """
    try:
        if len(entry) == 2:
            yield from _read_pair(entry, filesystem)
            return
        path = entry[0]
        match format_of(path):
            case "parquet":
                yield from _read_parquet(path, filesystem, columns, row_groups)
            case "arrow":
                yield from _read_arrow(path, filesystem, columns)
            case "json":
                yield from _read_json_lines(path, filesystem, columns)
            case "tsv":
                # By custom TSV has no quoting: a quotation mark is a character like any other.
                parsing = pa.csv.ParseOptions(delimiter="\t", quote_char=False)
                yield from _read_csv(path, filesystem, columns, csv_block, parsing)
            case _:
                parsing = pa.csv.ParseOptions(delimiter=delimiter or ",", newlines_in_values=True)
                yield from _read_csv(path, filesystem, columns, csv_block, parsing)
    except (pa.ArrowException, OSError, EOFError) as error:
        raise _unreadable(" or ".join(repr(path) for path in entry), error) from error


def check_entry(
    entry: tuple[str, ...],
    filesystem: FileSystem,
    columns: Columns,
    delimiter: str | None = None,
) -> bool:
    """Whether there are rows, looking at the beginning only. Raises as `read_entry`."""
    if len(entry) == 1 and format_of(entry[0]) == "parquet":
        with _parquet_file(entry[0], filesystem) as file:
            leaves_of(file.schema_arrow, columns, entry[0])
            return bool(file.metadata.num_rows)
    for block in (BLOCK_BYTES, LONGEST_LINE):
        tables = read_entry(entry, filesystem, columns, None, delimiter, block)
        try:
            # Of a pair the second as well, which shows whether two short files end at one line.
            return bool(sum(table.num_rows for table in islice(tables, len(entry))))
        except RequestError:
            if block == LONGEST_LINE:
                raise
    raise AssertionError("the last block size returns or raises")


def _unreadable(names: str, error: Exception) -> RequestError:
    """What to say of an error that pyarrow met while it read."""
    reason = " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno is not None:  # of the file system, not of content
        return RequestError(f"{names} cannot be read: {error.strerror or reason}")
    if "Truncated compressed stream" in reason:
        return RequestError(f"{names} was cut off: its compressed data has no end; {_AGAIN}")
    return RequestError(f"{names} is damaged or not what its suffix says: {reason}; {_AGAIN}")


# --- Parquet and Arrow --------------------------------------------------------------------------


def parquet_row_groups(path: str, filesystem: FileSystem) -> list[int]:
    """The size of each row group in bytes, uncompressed."""
    with _parquet_file(path, filesystem) as file:
        metadata = file.metadata
        return [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]


def _parquet_file(path: str, filesystem: FileSystem) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, filesystem=filesystem, page_checksum_verification=True)
    except (pa.ArrowInvalid, OSError) as error:
        with filesystem.open_input_file(path) as file:
            begins = file.read(4)
        if begins == b"PAR1":
            raise RequestError(
                f"{path!r} was cut off: Parquet's end is missing; {_AGAIN}"
            ) from error
        reason = " ".join(str(error).split())
        raise RequestError(f"{path!r} is not Parquet: {reason}") from error


def _read_parquet(
    path: str, filesystem: FileSystem, columns: Columns, row_groups: range | None
) -> Iterator[pa.Table]:
    with _parquet_file(path, filesystem) as file:
        leaves = leaves_of(file.schema_arrow, columns, path)
        groups = None if row_groups is None else list(row_groups)
        for batch in file.iter_batches(ROWS, groups, list(dict.fromkeys(leaves))):
            yield table_of_batch(batch, leaves)


def _read_arrow(path: str, filesystem: FileSystem, columns: Columns) -> Iterator[pa.Table]:
    """Arrow's stream, which is what `datasets` writes, or Arrow's file."""
    with filesystem.open_input_file(path) as file:
        is_file = file.read(6) == b"ARROW1"
        file.seek(max(0, file.size() - len(_END_OF_STREAM)))
        ended = file.read() == _END_OF_STREAM  # a cut between two batches leaves no other trace
        file.seek(0)
        if not (is_file or ended):
            raise RequestError(f"{path!r} was cut off: Arrow's end of stream is missing; {_AGAIN}")
        reader = pa.ipc.open_file(file) if is_file else pa.ipc.open_stream(file)
        leaves = leaves_of(reader.schema, columns, path)
        batches = map(reader.get_batch, range(reader.num_record_batches)) if is_file else reader
        for batch in batches:
            for leaf in leaves:
                _check_offsets(column_of(batch, leaf))
            for start in range(0, batch.num_rows, ROWS):
                yield table_of_batch(batch.slice(start, ROWS), leaves)


def _check_offsets(values: pa.Array) -> None:
    """ArrowInvalid if they point outside of the text, as damage makes them: reading there would be
    the end of the process. That the text is UTF-8 is not asked of the whole batch."""
    plain = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}
    (values.view(plain[values.type]) if values.type in plain else values).validate(full=True)


# --- JSON lines ---------------------------------------------------------------------------------


def _read_json_lines(path: str, filesystem: FileSystem, columns: Columns) -> Iterator[pa.Table]:
    number, checked = 0, False
    for lines in line_blocks(path, filesystem):
        rows = [
            _json_row(line, path, number + i) for i, line in enumerate(lines, 1) if line.strip()
        ]
        if rows and not checked:
            check_keys(rows, columns, path)
            checked = True
        number += len(lines)
        yield table_of_dicts(rows, columns)


def _json_row(line: bytes, path: str, number: int) -> dict[str, Any]:
    try:
        # Bytes that are no UTF-8 become lone surrogates, which `from_python` calls "not_text".
        row = json.loads(line.decode("utf-8-sig", errors="surrogateescape"))
    except (ValueError, RecursionError) as error:
        if not line.endswith(b"\n"):
            raise RequestError(
                f"{path!r} ends in the middle of line {number}: it was cut off; {_AGAIN}"
            ) from error
        raise RequestError(f"{path!r} line {number} is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise RequestError(
            f"{path!r} line {number} holds a {type(row).__name__}, where each must hold an object"
        )
    return row


# --- CSV and TSV --------------------------------------------------------------------------------


def _read_csv(
    path: str,
    filesystem: FileSystem,
    columns: Columns,
    block_bytes: int,
    parsing: pa.csv.ParseOptions,
) -> Iterator[pa.Table]:
    with open_file(path, filesystem) as file:
        if not file.read(1):
            return
    ragged = 0

    def skip(_: pa.csv.InvalidRow) -> str:
        nonlocal ragged
        ragged += 1
        return "skip"

    parsing.invalid_row_handler = skip
    settings: dict[str, Any] = {
        # One thread: the rows that `skip` counts are then always those of the batches so far.
        "read_options": pa.csv.ReadOptions(block_size=block_bytes, use_threads=False),
        "parse_options": parsing,
        # Bytes, not strings: one byte that is no UTF-8 then costs its row and not the file.
        "convert_options": pa.csv.ConvertOptions(
            column_types=dict.fromkeys(columns, pa.binary()),
            include_columns=list(dict.fromkeys(columns)),
            strings_can_be_null=False,
        ),
    }
    try:
        with open_file(path, filesystem) as file:
            for batch in pa.csv.open_csv(file, **settings):
                for start in range(0, batch.num_rows, ROWS):
                    part = batch.slice(start, ROWS)
                    yield table_of(*(as_text(part.column(column)) for column in columns))
                if ragged:
                    yield ragged_rows(ragged)
                    ragged = 0
    except KeyError:
        del settings["convert_options"]
        with open_file(path, filesystem) as file:
            check_columns(columns, path, pa.csv.open_csv(file, **settings).schema.names)
        raise
    except pa.ArrowInvalid as error:
        if "straddl" not in str(error):
            raise
        raise _record_too_long(path, filesystem) from error
    if ragged:
        yield ragged_rows(ragged)


def _record_too_long(path: str, filesystem: FileSystem) -> RequestError:
    for _ in line_blocks(path, filesystem):
        pass  # raises for the line, if it is one
    return RequestError(
        f"{path!r} has a row of more than {LONGEST_LINE // 1024**2} MiB over many lines: is a "
        "quotation mark never closed?"
    )


# --- Pairs of text files ------------------------------------------------------------------------


def _read_pair(entry: tuple[str, ...], filesystem: FileSystem) -> Iterator[pa.Table]:
    blocks = [line_blocks(path, filesystem) for path in entry]
    lines: list[list[bytes]] = [[], []]
    count = 0
    while True:
        lines = [mine or next(more, []) for mine, more in zip(lines, blocks, strict=True)]
        if not all(lines):
            break
        size = min(map(len, lines))
        if not count:
            lines = [[mine[0].removeprefix(BOM_UTF8), *mine[1:]] for mine in lines]
        yield table_of(*(as_text(pa.array(mine[:size], pa.binary())) for mine in lines))
        lines = [mine[size:] for mine in lines]
        count += size
    if any(lines):
        counts = [
            count + len(mine) + sum(map(len, more))
            for mine, more in zip(lines, blocks, strict=True)
        ]
        raise RequestError(
            f"line n must be the translation of line n, but {entry[0]!r} has {counts[0]} lines and "
            f"{entry[1]!r} has {counts[1]}"
        )
