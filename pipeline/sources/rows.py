"""Columns of any kind → tables {source: string, target: string, problem: string}.

`problem` is null or why the row cannot be used:

missing   a value is null, or its key absent
not_text  a value is a number, a list, or bytes that are no UTF-8
ragged    the line of a CSV or TSV file has too many or too few cells

The sides with a problem are null. Where a schema of `whole_rows` says so (`keep`), a fourth column,
`row`, holds all columns that there are.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from heliograph.pipeline.request.errors import RequestError, did_you_mean
from heliograph.pipeline.sources.lines import LONGEST_LINE
from heliograph.pipeline.sources.whole_rows import ROW, no_row, row_of_batch, row_of_dicts

SCHEMA = pa.schema([("source", pa.string()), ("target", pa.string()), ("problem", pa.string())])
ROWS = 8192
"""Rows of a table, roughly: small beside memory, large beside the cost of a table."""

Columns = tuple[str, str]
"""The names of the source's and the target's column, or of their keys inside `translation`."""
Side = tuple[pa.Array, pa.Array]
"""Texts, and each one's problem."""


class Dialect(NamedTuple):
    """How CSV and TSV files are to be read."""

    delimiter: str | None = None
    """Between cells, where the dataset's README says so. None: by the suffix."""
    numbers: tuple[int, int] | None = None
    """Of source's and target's column, from 1, where the first line is a pair like all others.
    None: it names the columns."""


USUAL = Dialect()


@dataclass(frozen=True)
class Reading:
    """What is to be read of a file."""

    columns: Columns
    dialect: Dialect = USUAL
    row_groups: range | None = None
    """Only these of a Parquet file."""
    csv_block: int = LONGEST_LINE
    """Bytes of a CSV file that are parsed at once, of which a row may not have more."""
    keep: pa.Schema | None = None
    """Types of all columns, where these are to be read as well."""


def table_of(source: Side, target: Side, row: pa.StructArray | None = None) -> pa.Table:
    """A table of SCHEMA; a row's problem is its source's, else its target's."""
    problem = pc.coalesce(source[1], target[1])
    table = pa.Table.from_arrays([source[0], target[0], problem], schema=SCHEMA)
    return table if row is None else table.append_column(ROW, row)


def table_of_batch(
    batch: pa.RecordBatch, leaves: list[str], keep: pa.Schema | None = None
) -> pa.Table:
    """A table of SCHEMA; `leaves` as from `leaves_of`."""
    source, target = (as_text(column_of(batch, leaf)) for leaf in leaves)
    return table_of(source, target, None if keep is None else row_of_batch(batch, keep))


def table_of_dicts(
    rows: list[dict[str, Any]], columns: Columns, keep: pa.Schema | None = None
) -> pa.Table:
    """A table of SCHEMA. A key that a row lacks is a missing value."""
    source, target = (from_python(_value(row, column) for row in rows) for column in columns)
    return table_of(source, target, None if keep is None else row_of_dicts(rows, keep))


def ragged_rows(count: int, keep: pa.Schema | None = None) -> pa.Table:
    """A table of SCHEMA for lines that could not be cut into cells."""
    nothing = pa.nulls(count, pa.string())
    problem = pa.array(["ragged"] * count, pa.string())
    row = None if keep is None else no_row(count, keep)
    return table_of((nothing, problem), (nothing, problem), row)


def leaves_of(schema: pa.Schema, columns: Columns, path: str) -> list[str]:
    """Where in the schema each column is: `NAME` or `translation.NAME`.

    Raises:
        RequestError: it is not there, or holds something else than text.
    """
    top = {field.name: field.type for field in schema}
    inner = {}
    if "translation" in top and pa.types.is_struct(top["translation"]):
        inner = {field.name: field.type for field in top["translation"]}
    leaves = []
    check_columns(columns, path, top, inner)
    for side, column in zip(("source", "target"), columns, strict=True):
        kind = top.get(column, inner.get(column))
        if not (_is_text(kind) or pa.types.is_null(kind)):
            raise RequestError(f"data.{side}: {column!r} of {path!r} holds {kind}, not text")
        leaves.append(column if column in top else f"translation.{column}")
    return leaves


def column_of(batch: pa.RecordBatch, leaf: str) -> pa.Array:
    """The column that a leaf of `leaves_of` names."""
    if leaf in batch.schema.names:
        return batch.column(leaf)
    # Not StructArray.field, which forgets that the struct itself may be null.
    struct = batch.column("translation")
    return struct.flatten()[struct.type.get_field_index(leaf.removeprefix("translation."))]


def check_columns(
    columns: Columns, path: str, top: Iterable[str], inner: Iterable[str] = ()
) -> None:
    """RequestError unless both are among the columns, or the keys inside `translation`."""
    for side, column in zip(("source", "target"), columns, strict=True):
        if column not in top and column not in inner:
            there = [*sorted(top), *(f"{key} (in translation)" for key in sorted(inner))]
            message = f"data.{side}: {path!r} has no column {column!r}; it has: {', '.join(there)}"
            hint = did_you_mean(column, [*top, *inner])
            raise RequestError(f"{message}; {hint}" if hint.startswith("did") else message)


def check_keys(rows: list[dict[str, Any]], columns: Columns, path: str) -> None:
    """RequestError unless each column is a key of some of these rows."""
    translations = [row["translation"] for row in rows if _has_translation(row)]
    inner = {key for translation in translations for key in translation}
    check_columns(columns, path, {key for row in rows for key in row}, inner)


def as_text(values: pa.Array) -> Side:
    """Strings, or bytes that should be UTF-8, as they are in a column."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_null(values.type):
        return from_python([None] * len(values))
    try:
        # Through bytes, because a column may claim to be UTF-8 and not be.
        text = values.cast(pa.large_binary()).cast(pa.string())
    except pa.ArrowInvalid:
        return from_python(
            None if value is None else value.decode(errors="surrogateescape")
            for value in values.cast(pa.large_binary()).to_pylist()
        )
    problem = pc.if_else(text.is_valid(), pa.scalar(None, pa.string()), "missing")
    return text, problem


def from_python(values: Iterable[Any]) -> Side:
    """Anything: what is no string is `not_text`, and so is what cannot be written as UTF-8."""
    texts: list[str | None] = []
    problems: list[str | None] = []
    for value in values:
        good = isinstance(value, str) and _is_encodable(value)
        texts.append(value if good else None)
        problems.append(None if good else "missing" if value is None else "not_text")
    return pa.array(texts, pa.string()), pa.array(problems, pa.string())


def _value(row: dict[str, Any], column: str) -> Any:
    if column in row or not _has_translation(row):
        return row.get(column)
    return row["translation"].get(column)


def _has_translation(row: dict[str, Any]) -> bool:
    return isinstance(row.get("translation"), dict)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return any(
        is_kind(kind)
        for is_kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    )


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
