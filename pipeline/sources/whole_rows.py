"""All columns of a row, whatever they are: their types, and their values in these types.

Parquet and Arrow bring types. Of other formats a column's type is that of all its values together,
and where they have none in common it is text: strings as they are, everything else as JSON.
"""

import json
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

ROW = "row"
"""The column of a `rows` table that holds all columns of the data set, as a struct; null where a
line could not be cut into cells."""
TEXT = pa.string()


def schema_of_dicts(rows: list[dict[str, Any]]) -> pa.Schema:
    """The keys of these rows, in the order in which they appear, and their values' types."""
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.schema([(name, _type_of([row.get(name) for row in rows])) for name in names])


def joined(schemas: Iterable[pa.Schema]) -> pa.Schema:
    """All columns of all schemas, each of a type that holds the values of all; what Parquet cannot
    store becomes text. Metadata is left out: it describes other columns than will be written."""
    fields: dict[str, pa.DataType] = {}
    for schema in schemas:
        for field in schema:
            fields[field.name] = _wider(fields.get(field.name, field.type), field.type)
    return pa.schema(list(fields.items()))


def storable(schema: pa.Schema) -> pa.Schema:
    """The schema with text for what Parquet has no type for."""
    return pa.schema(
        [(field.name, field.type if _is_storable(field.type) else TEXT) for field in schema]
    )


def row_of_batch(batch: pa.RecordBatch, schema: pa.Schema) -> pa.StructArray:
    """The rows in the schema's types; a column that the batch lacks is null."""
    names = set(batch.schema.names)
    return _struct(
        [
            _cast(batch.column(field.name), field.type)
            if field.name in names
            else pa.nulls(batch.num_rows, field.type)
            for field in schema
        ],
        schema,
    )


def row_of_dicts(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.StructArray:
    """Likewise."""
    return _struct([_array([row.get(f.name) for row in rows], f.type) for f in schema], schema)


def no_row(count: int, schema: pa.Schema) -> pa.StructArray:
    """For lines that could not be cut into cells."""
    return pa.nulls(count, pa.struct(list(schema)))


def _struct(arrays: list[pa.Array], schema: pa.Schema) -> pa.StructArray:
    return pa.StructArray.from_arrays(arrays, fields=list(schema))


def _type_of(values: list[Any]) -> pa.DataType:
    try:
        return pa.array(values).type
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return TEXT  # values of several types, integers of more than 64 bits, lone surrogates


def _wider(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    if one == other:
        return one
    pair = [pa.schema([("column", kind)]) for kind in (one, other)]
    try:
        return pa.unify_schemas(pair, promote_options="permissive").field("column").type
    except pa.ArrowException:
        return TEXT


def _is_storable(kind: pa.DataType) -> bool:
    """A value that is never anything else than null, and a struct without fields, are not."""
    if pa.types.is_null(kind) or pa.types.is_union(kind):
        return False
    inner = [kind.field(number).type for number in range(kind.num_fields)]
    return all(map(_is_storable, inner)) and bool(inner or not pa.types.is_struct(kind))


def _cast(values: pa.Array, kind: pa.DataType) -> pa.Array:
    if values.type == kind:
        return values
    if kind == TEXT and not pa.types.is_binary(values.type):
        return _array(values.to_pylist(), kind)
    try:
        return values.cast(kind)
    except pa.ArrowException:  # bytes that are no UTF-8, or a struct with other fields
        return _array(values.to_pylist(), kind)


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    return pa.array(map(_text, values) if kind == TEXT else values, kind)


def _text(value: Any) -> str | None:
    """Text as it is; what UTF-8 cannot hold of it as \\udc80 or \\xff; anything else as JSON."""
    if value is None:
        return None
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if not isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False, default=str)
    return str(value).encode(errors="backslashreplace").decode()
