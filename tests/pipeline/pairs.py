"""A few pairs in every format, and reading them back without Ray."""

import bz2
import gzip
import io
import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from heliograph.pipeline.request.data import Data, Location
from heliograph.pipeline.sources.source import check_source, find_source

PAIRS = [("a dog", "ein Hund"), ('it says "hi", 5 times', "es sagt, „hallo“"), ("1984", "NULL")]
Row = tuple[str | None, str | None, str | None]


def data(**values: Any) -> Data:
    return Data(**{"train": "-", "validation": "-", "source": "en", "target": "de"} | values)


def rows(location: Location, split: str = "train", **values: Any) -> list[Row]:
    """All rows of the location, after the check that comes before."""
    found = find_source(location, data(**values), split)
    check_source(found)
    return [
        (row["source"], row["target"], row["problem"])
        for part in range(len(found.parts))
        for table in found.tables(part)
        for row in table.to_pylist()
    ]


def good(pairs: Sequence[tuple[str, str]]) -> list[Row]:
    return [(*pair, None) for pair in pairs]


def jsonl(pairs: Sequence[tuple[Any, Any]]) -> bytes:
    return b"".join(json.dumps({"en": en, "de": de}).encode() + b"\n" for en, de in pairs)


def parquet(pairs: Sequence[tuple[Any, Any]], nested: bool = False, groups: int = 1000) -> bytes:
    plain = [{"en": en, "de": de} for en, de in pairs]
    table = pa.Table.from_pylist([{"translation": row} for row in plain] if nested else plain)
    pq.write_table(table, buffer := io.BytesIO(), row_group_size=groups)
    return buffer.getvalue()


CSV = (
    'de,id,en\nein Hund,1,a dog\n"es sagt, „hallo“",2,"it says ""hi"", 5 times"\nNULL,3,1984\n'
).encode()
TSV = 'en\tde\na dog\tein Hund\nit says "hi", 5 times\tes sagt, „hallo“\n1984\tNULL\n'.encode()
FORMATS = {
    "pairs.parquet": parquet(PAIRS),
    "nested.parquet": parquet(PAIRS, nested=True),
    "pairs.jsonl": jsonl(PAIRS),
    "pairs.json": jsonl(PAIRS),
    "nested.jsonl": b"".join(
        json.dumps({"id": 1, "translation": {"en": en, "de": de}}).encode() + b"\n\n"
        for en, de in PAIRS
    ),
    "pairs.jsonl.gz": gzip.compress(jsonl(PAIRS)),
    "pairs.csv": CSV,
    "bom.csv": b"\xef\xbb\xbf" + CSV,
    "pairs.csv.bz2": bz2.compress(CSV),
    "pairs.tsv": TSV,
    "pairs.tsv.gz": gzip.compress(TSV),
}
