"""Files → tables {source: string, target: string, problem: string}, streamed.

`problem` is null, "missing" (the value is null or its key absent) or "not_text" (a number, a list,
bytes that are no UTF-8); the sides with a problem are null. Here pyarrow and Python read the files.
Ray Data's own readers load a whole text or JSON file at once, guess types from the values ("1984"
becomes a number), and fail on the first row that differs from those before it.
"""

import json
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from io import BufferedReader
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from pyarrow.fs import FileSystem

from pipeline.errors import RequestError, did_you_mean
from pipeline.files import COMPRESSIONS, format_of

SCHEMA = pa.schema([("source", pa.string()), ("target", pa.string()), ("problem", pa.string())])
ROWS = 8192
"""Rows of a table, roughly: small beside memory, large beside the cost of a table."""

Columns = tuple[str, str]
"""The names of the source's and the target's column, or of their keys inside `translation`."""


def read_entry(
    entry: tuple[str, ...],
    filesystem: FileSystem,
    columns: Columns,
    row_groups: range | None = None,
) -> Iterator[pa.Table]:
    """The tables of one file or pair of files. `row_groups`: only these of a Parquet file.

    Raises:
        RequestError: a column is not there, a file is not what its suffix says, or a pair of files
            differs in its number of lines.
    """
    if len(entry) == 2:
        yield from _read_pair(entry, filesystem)
        return
    path = entry[0]
    try:
        match format_of(path):
            case "parquet":
                yield from _read_parquet(path, filesystem, columns, row_groups)
            case "json":
                yield from _read_json_lines(path, filesystem, columns)
            case "tsv":
                # By custom TSV has no quoting: a quotation mark is a character like any other.
                options = pa.csv.ParseOptions(delimiter="\t", quote_char=False)
                yield from _read_csv(path, filesystem, columns, options)
            case _:
                options = pa.csv.ParseOptions(newlines_in_values=True)
                yield from _read_csv(path, filesystem, columns, options)
    except (pa.ArrowInvalid, EOFError) as error:
        reason = " ".join(str(error).split())
        raise RequestError(f"{path!r} is not what its suffix says: {reason}") from error


def check_entry(entry: tuple[str, ...], filesystem: FileSystem, columns: Columns) -> bool:
    """Whether there are rows, looking at the beginning only. Raises as `read_entry`."""
    if len(entry) == 1 and format_of(entry[0]) == "parquet":
        with _parquet_file(entry[0], filesystem) as file:
            _parquet_columns(file, entry[0], columns)
            return bool(file.metadata.num_rows)
    return any(table.num_rows for table in islice(read_entry(entry, filesystem, columns), 1))


# --- Parquet ------------------------------------------------------------------------------------


def parquet_row_groups(path: str, filesystem: FileSystem) -> list[int]:
    """The size of each row group in bytes, uncompressed."""
    with _parquet_file(path, filesystem) as file:
        metadata = file.metadata
        return [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]


def _parquet_file(path: str, filesystem: FileSystem) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, filesystem=filesystem)
    except pa.ArrowInvalid as error:
        raise RequestError(f"{path!r} is not Parquet: {error}") from error


def _read_parquet(
    path: str, filesystem: FileSystem, columns: Columns, row_groups: range | None
) -> Iterator[pa.Table]:
    with _parquet_file(path, filesystem) as file:
        leaves = _parquet_columns(file, path, columns)
        batches = file.iter_batches(
            ROWS, None if row_groups is None else list(row_groups), list(dict.fromkeys(leaves))
        )
        for batch in batches:
            sides = [_column(batch, leaf) for leaf in leaves]
            yield _table(*(_as_text(side) for side in sides))


def _parquet_columns(file: pq.ParquetFile, path: str, columns: Columns) -> list[str]:
    """Each column's path in the schema: `NAME` or `translation.NAME`."""
    schema = file.schema_arrow
    top = {field.name: field.type for field in schema}
    inner = {}
    if "translation" in top and pa.types.is_struct(top["translation"]):
        inner = {field.name: field.type for field in top["translation"]}
    leaves = []
    for side, column in zip(("source", "target"), columns, strict=True):
        if column not in top and column not in inner:
            raise _no_column(side, column, path, top, inner)
        kind = top.get(column, inner.get(column))
        if not (_is_text(kind) or pa.types.is_null(kind)):
            raise RequestError(f"data.{side}: {column!r} of {path!r} holds {kind}, not text")
        leaves.append(column if column in top else f"translation.{column}")
    return leaves


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return any(
        is_kind(kind)
        for is_kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    )


def _column(batch: pa.RecordBatch, leaf: str) -> pa.Array:
    if leaf in batch.schema.names:
        return batch.column(leaf)
    # Not StructArray.field, which forgets that the struct itself may be null.
    struct = batch.column("translation")
    return struct.flatten()[struct.type.get_field_index(leaf.removeprefix("translation."))]


# --- JSON lines ---------------------------------------------------------------------------------


def _read_json_lines(path: str, filesystem: FileSystem, columns: Columns) -> Iterator[pa.Table]:
    number = 0
    with _open(path, filesystem) as file:
        while lines := list(islice(file, ROWS)):
            rows = [
                _json_row(line, path, number + i) for i, line in enumerate(lines, 1) if line.strip()
            ]
            if number == 0 and rows:
                _check_json_columns(rows, path, columns)
            number += len(lines)
            yield _table(*(_from_python(_json_value(row, c) for row in rows) for c in columns))


def _json_row(line: bytes, path: str, number: int) -> dict[str, Any]:
    try:
        # Bytes that are no UTF-8 become lone surrogates, which `_from_python` calls "not_text".
        row = json.loads(line.decode("utf-8-sig", errors="surrogateescape"))
    except ValueError as error:
        raise RequestError(f"{path!r} line {number} is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise RequestError(
            f"{path!r} line {number} holds a {type(row).__name__}, where each must hold an object"
        )
    return row


def _json_value(row: dict[str, Any], column: str) -> Any:
    if column in row:
        return row[column]
    translation = row.get("translation")
    return translation.get(column) if isinstance(translation, dict) else None


def _check_json_columns(rows: list[dict[str, Any]], path: str, columns: Columns) -> None:
    top = {key for row in rows for key in row}
    inner = {
        key
        for row in rows
        if isinstance(row.get("translation"), dict)
        for key in row["translation"]
    }
    for side, column in zip(("source", "target"), columns, strict=True):
        if column not in top and column not in inner:
            raise _no_column(side, column, path, top, inner)


# --- CSV and TSV --------------------------------------------------------------------------------


def _read_csv(
    path: str, filesystem: FileSystem, columns: Columns, options: pa.csv.ParseOptions
) -> Iterator[pa.Table]:
    # Bytes, not strings: one byte that is no UTF-8 then costs its row and not the file.
    convert = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(columns, pa.binary()),
        include_columns=list(dict.fromkeys(columns)),
        strings_can_be_null=False,
    )
    with _open(path, filesystem) as file:
        names = pa.csv.open_csv(file, parse_options=options).schema.names
    for side, column in zip(("source", "target"), columns, strict=True):
        if column not in names:
            raise _no_column(side, column, path, names, ())
    with _open(path, filesystem) as file:
        for batch in pa.csv.open_csv(file, parse_options=options, convert_options=convert):
            yield _table(*(_as_text(batch.column(column)) for column in columns))


# --- Pairs of text files ------------------------------------------------------------------------


def _read_pair(entry: tuple[str, ...], filesystem: FileSystem) -> Iterator[pa.Table]:
    with ExitStack() as stack:
        files = [stack.enter_context(_open(path, filesystem)) for path in entry]
        lines = [0, 0]
        while True:
            chunks = [list(islice(file, ROWS)) for file in files]
            lines = [count + len(chunk) for count, chunk in zip(lines, chunks, strict=True)]
            if len(chunks[0]) != len(chunks[1]):
                lines = [
                    count + sum(1 for _ in file) for count, file in zip(lines, files, strict=True)
                ]
                raise RequestError(
                    f"line n must be the translation of line n, but {entry[0]!r} has {lines[0]} "
                    f"lines and {entry[1]!r} has {lines[1]}"
                )
            if not chunks[0]:
                return
            if lines[0] == len(chunks[0]):
                chunks = [[chunk[0].removeprefix(BOM_UTF8), *chunk[1:]] for chunk in chunks]
            yield _table(*(_as_text(pa.array(chunk, pa.binary())) for chunk in chunks))


# --- Shared by the formats ----------------------------------------------------------------------


def _open(path: str, filesystem: FileSystem) -> BufferedReader:
    stream = BufferedReader(filesystem.open_input_stream(path, compression="detect"))
    if path.endswith(COMPRESSIONS):
        try:
            stream.peek(1)
        except OSError as error:
            raise RequestError(f"{path!r} is not what its suffix says: {error}") from error
    return stream


def _as_text(values: pa.Array) -> tuple[pa.Array, pa.Array]:
    """The values as text, and each one's problem."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_null(values.type):
        return _from_python([None] * len(values))
    try:
        # Through bytes, because a column may claim to be UTF-8 and not be.
        text = values.cast(pa.large_binary()).cast(pa.string())
    except pa.ArrowInvalid:
        return _from_python(
            None if value is None else value.decode(errors="surrogateescape")
            for value in values.cast(pa.large_binary()).to_pylist()
        )
    problem = pc.if_else(text.is_valid(), pa.scalar(None, pa.string()), "missing")
    return text, problem


def _from_python(values: Iterable[Any]) -> tuple[pa.Array, pa.Array]:
    texts: list[str | None] = []
    problems: list[str | None] = []
    for value in values:
        good = isinstance(value, str) and _is_encodable(value)
        texts.append(value if good else None)
        problems.append(None if good else "missing" if value is None else "not_text")
    return pa.array(texts, pa.string()), pa.array(problems, pa.string())


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _table(source: tuple[pa.Array, pa.Array], target: tuple[pa.Array, pa.Array]) -> pa.Table:
    problem = pc.coalesce(source[1], target[1])
    return pa.Table.from_arrays([source[0], target[0], problem], schema=SCHEMA)


def _no_column(
    side: str, column: str, path: str, top: Iterable[str], inner: Iterable[str]
) -> RequestError:
    there = [*sorted(top), *(f"{key} (in translation)" for key in sorted(inner))]
    message = f"data.{side}: {path!r} has no column {column!r}; it has: {', '.join(there)}"
    hint = did_you_mean(column, [*top, *inner])
    return RequestError(f"{message}; {hint}" if hint.startswith("did") else message)
