"""A data set looked through before long work begins: its columns' types, and how many rows.

Reading costs little beside translating. So a file that is damaged at its end is found at once, not
after days; the types of columns hold for all rows; and it is known how long the work will take.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.sources.formats import look_at_entry
from heliograph.pipeline.sources.shards import Shards
from heliograph.pipeline.sources.source import Source
from heliograph.pipeline.sources.text_readers import SIDES, look_at_text
from heliograph.pipeline.sources.whole_rows import joined, storable


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
    elif origin is not None:
        found = look_at_entry(part.entry, origin.filesystem, source.reading(part))
    else:
        found = look_at_text(SIDES, source.tables(number))
    for some, rows in found:
        _check_names(some, part.entry)
        if some != schema:
            schema = joined([schema, some])
        total += rows
    return schema, total


def _check_names(schema: pa.Schema, entry: tuple[str, ...]) -> None:
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise RequestError(f"{entry[0]!r} has several columns {twice[0]!r}; rename all but one")
