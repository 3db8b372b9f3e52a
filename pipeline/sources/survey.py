"""A data set looked through before long work begins: its columns' types, and how many rows.

Reading costs little beside translating. So a file that is damaged at its end is found at once, not
after days; the types of columns hold for all rows; and it is known how long the work will take.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.sources.files import Files, format_of
from heliograph.pipeline.sources.readers import arrow_batches, in_words, open_parquet, read_entry
from heliograph.pipeline.sources.shards import Shards
from heliograph.pipeline.sources.source import Part, Source
from heliograph.pipeline.sources.text_readers import SIDES, csv_columns, json_rows
from heliograph.pipeline.sources.whole_rows import TEXT, joined, schema_of_dicts, storable


@dataclass(frozen=True)
class Survey:
    schema: pa.Schema
    """All columns of all parts, in types that Parquet can store; see `whole_rows`."""
    rows: tuple[int, ...]
    """Of each part of the source."""


def survey(source: Source) -> Survey:
    """Look through all parts, a Ray task for each: of Parquet files at their ends, of others at
    everything.

    Raises:
        RequestError: something cannot be read, or two columns have the same name.
    """

    def look(part: int, _: Iterator[pa.Table]) -> Iterator[pa.Table]:
        schema, rows = survey_part(source, part)
        yield pa.table({"schema": [schema.serialize().to_pybytes()], "rows": [rows]})

    facts = list(source.dataset(look).iter_rows())
    schemas = [pa.ipc.read_schema(pa.py_buffer(fact["schema"])) for fact in facts]
    return Survey(storable(joined(schemas)), tuple(int(fact["rows"]) for fact in facts))


def survey_part(source: Source, number: int) -> tuple[pa.Schema, int]:
    """The columns of one part, null where no value is there, and its rows."""
    schema, total = pa.schema([]), 0
    part, origin = source.parts[number], source.origin
    if isinstance(origin, Shards):
        found = origin.schemas(number)
    elif origin is not None and len(part.entry) == 1:
        found = _of_file(part, origin, source)
    else:
        found = _of_text(SIDES, source.tables(number))
    for some, rows in found:
        _check_names(some, part.entry)
        if some != schema:
            schema = joined([schema, some])
        total += rows
    return schema, total


def _of_file(part: Part, files: Files, source: Source) -> Iterator[tuple[pa.Schema, int]]:
    """Types and the number of rows, some rows at a time."""
    path, filesystem = part.entry[0], files.filesystem
    with in_words(part.entry):
        match format_of(path):
            case "parquet":
                with open_parquet(path, filesystem) as file:
                    groups = part.row_groups or range(file.metadata.num_row_groups)
                    rows = sum(file.metadata.row_group(group).num_rows for group in groups)
                    yield file.schema_arrow, rows
            case "arrow":
                for batch in arrow_batches(path, filesystem):
                    yield batch.schema, batch.num_rows
            case "json":
                for some in json_rows(path, filesystem):
                    yield schema_of_dicts(some), len(some)
            case _:
                names = csv_columns(path, filesystem, files.dialect)
                tables = read_entry(part.entry, filesystem, source.columns, None, files.dialect)
                yield from _of_text(names, tables)


def _of_text(names: list[str], tables: Iterator[pa.Table]) -> Iterator[tuple[pa.Schema, int]]:
    schema = pa.schema([(name, TEXT) for name in names])
    yield schema, 0
    for table in tables:
        yield schema, table.num_rows


def _check_names(schema: pa.Schema, entry: tuple[str, ...]) -> None:
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise RequestError(f"{entry[0]!r} has several columns {twice[0]!r}; rename all but one")
