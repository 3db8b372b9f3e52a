"""Text files → tables of `rows.SCHEMA`: JSON lines, CSV and TSV, pairs of files.

Errors that pyarrow meets are put in words by `formats`, which calls what is here.
"""

import json
import shlex
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from pyarrow.fs import FileSystem

from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.sources.lines import (
    AGAIN,
    LONGEST_LINE,
    line_blocks,
    open_file,
    open_table,
)
from heliograph.pipeline.sources.rows import (
    ROWS,
    Columns,
    Dialect,
    Reading,
    as_text,
    check_columns,
    check_keys,
    ragged_rows,
    table_of,
    table_of_dicts,
)
from heliograph.pipeline.sources.whole_rows import TEXT, row_of_batch, schema_of_dicts

SIDES = ["source", "target"]
"""The columns of a pair of text files."""
LINES_OF_NO_SENTENCE = 50
"""Of a CSV cell that is to be one side of a pair."""
SWALLOWED_LINES = 3
"""Of a CSV row whose number of cells is wrong: it is no row, but what a quotation mark began."""

Cells = Callable[[Dialect], pa.csv.ParseOptions]
"""How a CSV or TSV file is cut into cells."""

# --- JSON lines ---------------------------------------------------------------------------------


def read_json_lines(path: str, filesystem: FileSystem, reading: Reading) -> Iterator[pa.Table]:
    checked = False
    for rows in _json_rows(path, filesystem):
        if rows and not checked:
            check_keys(rows, reading.columns, path)
            checked = True
        yield table_of_dicts(rows, reading.columns, reading.keep)


def look_at_json_lines(
    path: str, filesystem: FileSystem, _: Reading
) -> Iterator[tuple[pa.Schema, int]]:
    for rows in _json_rows(path, filesystem):
        yield schema_of_dicts(rows), len(rows)


def _json_rows(path: str, filesystem: FileSystem) -> Iterator[list[dict[str, Any]]]:
    """The objects of all lines, a block of lines at a time."""
    number = 0
    for lines in line_blocks(path, filesystem):
        yield [_json_row(line, path, number + i) for i, line in enumerate(lines, 1) if line.strip()]
        number += len(lines)


def _json_row(line: bytes, path: str, number: int) -> dict[str, Any]:
    if number == 1 and line.removeprefix(BOM_UTF8).strip() in (b"[", b"{", b"[{"):
        raise _not_lines(path)
    try:
        # Bytes that are no UTF-8 become lone surrogates, which `from_python` calls "not_text".
        row = json.loads(line.decode("utf-8-sig", errors="surrogateescape"))
    except (ValueError, RecursionError) as error:
        if not line.endswith(b"\n"):
            raise RequestError(
                f"{path!r} ends in the middle of line {number}: it was cut off; {AGAIN}"
            ) from error
        raise RequestError(f"{path!r} line {number} is not JSON: {error}") from error
    if number == 1 and isinstance(row, list):
        raise _not_lines(path)
    if not isinstance(row, dict):
        raise RequestError(
            f"{path!r} line {number} holds a {type(row).__name__}, where each must hold an object"
        )
    return row


def _not_lines(path: str) -> RequestError:
    return RequestError(
        f"{path!r} is one JSON value; what is read is JSON lines, an object on each line. Of an "
        f"array they are made by: jq -c '.[]' {shlex.quote(path)} > pairs.jsonl"
    )


# --- CSV and TSV --------------------------------------------------------------------------------


def read_csv(path: str, filesystem: FileSystem, reading: Reading) -> Iterator[pa.Table]:
    return _read_cells(path, filesystem, reading, _commas)


def look_at_csv(
    path: str, filesystem: FileSystem, reading: Reading
) -> Iterator[tuple[pa.Schema, int]]:
    return _look_at_cells(path, filesystem, reading, _commas)


def read_tsv(path: str, filesystem: FileSystem, reading: Reading) -> Iterator[pa.Table]:
    return _read_cells(path, filesystem, reading, _tabs)


def look_at_tsv(
    path: str, filesystem: FileSystem, reading: Reading
) -> Iterator[tuple[pa.Schema, int]]:
    return _look_at_cells(path, filesystem, reading, _tabs)


def _commas(dialect: Dialect) -> pa.csv.ParseOptions:
    return pa.csv.ParseOptions(delimiter=dialect.delimiter or ",", newlines_in_values=True)


def _tabs(_: Dialect) -> pa.csv.ParseOptions:
    """By custom TSV has no quoting: a quotation mark is a character like any other."""
    return pa.csv.ParseOptions(delimiter="\t", quote_char=False)


def _look_at_cells(
    path: str, filesystem: FileSystem, reading: Reading, cells: Cells
) -> Iterator[tuple[pa.Schema, int]]:
    parsing = cells(reading.dialect)
    parsing.invalid_row_handler = lambda _: "skip"
    options = pa.csv.ReadOptions(block_size=LONGEST_LINE, use_threads=False)
    names: list[str] = []
    if (file := open_table(path, filesystem, quotes=bool(parsing.quote_char))) is not None:
        with file:
            names = pa.csv.open_csv(file, options, parsing).schema.names
    yield from look_at_text(names, _read_cells(path, filesystem, reading, cells))


def look_at_text(names: list[str], tables: Iterator[pa.Table]) -> Iterator[tuple[pa.Schema, int]]:
    """Of columns that are all text."""
    schema = pa.schema([(name, TEXT) for name in names])
    yield schema, 0
    for table in tables:
        yield schema, table.num_rows


def _read_cells(
    path: str, filesystem: FileSystem, reading: Reading, cells: Cells
) -> Iterator[pa.Table]:
    columns, dialect, keep = reading.columns, reading.dialect, reading.keep
    parsing = cells(dialect)
    unnamed = dialect.numbers is not None
    if dialect.numbers is not None:
        columns = (f"f{dialect.numbers[0] - 1}", f"f{dialect.numbers[1] - 1}")  # as pyarrow has it
    file = open_table(path, filesystem, quotes=bool(parsing.quote_char))
    if file is None:
        return
    ragged, swallowed = 0, 0

    def skip(row: pa.csv.InvalidRow) -> str:
        nonlocal ragged, swallowed
        ragged += 1
        swallowed = max(swallowed, row.text.count("\n"))
        return "skip"

    parsing.invalid_row_handler = skip
    settings: dict[str, Any] = {
        # One thread: the rows that `skip` counts are then always those of the batches so far.
        "read_options": pa.csv.ReadOptions(
            block_size=reading.csv_block, use_threads=False, autogenerate_column_names=unnamed
        ),
        "parse_options": parsing,
        # Bytes, not strings: one byte that is no UTF-8 then costs its row and not the file.
        "convert_options": pa.csv.ConvertOptions(
            column_types=dict.fromkeys([*columns, *(keep.names if keep else [])], pa.binary()),
            include_columns=None if keep else list(dict.fromkeys(columns)),
            strings_can_be_null=False,
        ),
    }
    try:
        with file:
            for batch in pa.csv.open_csv(file, **settings):
                for start in range(0, batch.num_rows, ROWS):
                    part = batch.slice(start, ROWS)
                    row = row_of_batch(part, keep) if keep else None
                    if keep is None:
                        _check_lines([part.column(column) for column in columns], path)
                    source, target = (as_text(part.column(column)) for column in columns)
                    yield table_of(source, target, row)
                if swallowed >= SWALLOWED_LINES:
                    raise _never_closed(path, swallowed)
                if ragged:
                    yield ragged_rows(ragged, keep)
                    ragged = 0
    except KeyError:
        del settings["convert_options"]
        with open_file(path, filesystem) as file:
            _check_header(dialect, columns, path, pa.csv.open_csv(file, **settings).schema.names)
        raise
    except pa.ArrowInvalid as error:
        if "straddl" not in str(error):
            raise
        raise _record_too_long(path, filesystem) from error
    if swallowed >= SWALLOWED_LINES:
        raise _never_closed(path, swallowed)
    if ragged:
        yield ragged_rows(ragged, keep)


def _check_header(dialect: Dialect, columns: Columns, path: str, names: list[str]) -> None:
    if dialect.numbers is not None:
        raise RequestError(
            f"data.columns {list(dialect.numbers)}: {path!r} has {len(names)} columns in its first "
            "line, which are numbered from 1"
        )
    try:
        check_columns(columns, path, names)
    except RequestError as error:
        raise RequestError(
            f"{error}. If its first line is a pair, and no header: data.columns=[1, 2] names the "
            "columns by their numbers"
        ) from None


def _check_lines(cells: list[pa.Array], path: str) -> None:
    """Two quotation marks, each of which nothing closes, make all between them one cell."""
    lines = max(pc.max(pc.count_substring(column, "\n")).as_py() or 0 for column in cells)
    if lines >= LINES_OF_NO_SENTENCE:
        raise RequestError(
            f"{path!r} has a cell of {lines} lines: is a quotation mark before it never closed? "
            "Where marks are characters like any other, name the file .tsv"
        )


def _never_closed(path: str, lines: int) -> RequestError:
    return RequestError(
        f"{path!r} has a row of {lines} lines that has too many or too few cells: a quotation mark "
        "in it is never closed. Where marks are characters like any other, name the file .tsv"
    )


def _record_too_long(path: str, filesystem: FileSystem) -> RequestError:
    for _ in line_blocks(path, filesystem):
        pass  # raises for the line, if it is one
    return RequestError(
        f"{path!r} has a row of more than {LONGEST_LINE // 1024**2} MiB over many lines: is a "
        "quotation mark never closed?"
    )


# --- Pairs of text files ------------------------------------------------------------------------


def read_pair(
    entry: tuple[str, ...], filesystem: FileSystem, reading: Reading
) -> Iterator[pa.Table]:
    keep = reading.keep
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
        ends = [[line.rstrip(b"\r\n") for line in mine[:size]] for mine in lines]
        sides = [pa.array(mine, pa.binary()) for mine in ends]
        row = row_of_batch(pa.RecordBatch.from_arrays(sides, SIDES), keep) if keep else None
        yield table_of(as_text(sides[0]), as_text(sides[1]), row)
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
