"""Pairs → Parquet files of equal pieces, and the digest of all pairs.

A piece is a row group of exactly `piece_rows` pairs; only the last one of all may be shorter. So
files, pieces and digest follow from the pairs and their order, and not from how they were read.
"""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from heliograph.pipeline.corpus.cleaning import CLEAN_SCHEMA
from heliograph.pipeline.corpus.duplicates import Selection
from heliograph.pipeline.corpus.stretches import PLAIN

FILE_ROWS = 65_536
"""Rows of a file, rounded to whole pieces."""


class Written(NamedTuple):
    files: tuple[tuple[str, int], ...]
    """Name and rows of each, in order."""
    digest: str
    """sha256 over the pieces' sha256, each of which is over its pairs."""


def write_pieces(selection: Selection, piece_rows: int, path: str, attempt: str) -> Written:
    """Write the selected pairs below `path`/`attempt`, a Ray task for each file."""
    import ray

    file_rows = piece_rows * max(1, FILE_ROWS // piece_rows)
    spans = [
        (first, min(first + file_rows, selection.total))
        for first in range(0, selection.total, file_rows)
    ]
    names = [f"{attempt}/part-{number:05}.parquet" for number in range(len(spans))]
    whole, write = ray.put(selection), ray.remote(_write_file)
    tasks = [
        write.remote(whole, span, piece_rows, f"{path}/{name}")
        for span, name in zip(spans, names, strict=True)
    ]
    digest = hashlib.sha256()
    for task in tasks:
        digest.update(ray.get(task))
    rows = (end - first for first, end in spans)
    return Written(tuple(zip(names, rows, strict=True)), digest.hexdigest())


def _write_file(selection: Selection, span: tuple[int, int], piece_rows: int, path: str) -> bytes:
    """Write the pairs of this span; returns the sha256 of each piece, one behind the other."""
    digests = []
    with (
        selection.workshop.filesystem.open_output_stream(path) as stream,
        pq.ParquetWriter(stream, CLEAN_SCHEMA, compression="zstd", **PLAIN) as writer,
    ):
        for piece in _pieces(selection.read(*span), piece_rows):
            writer.write_table(piece, row_group_size=piece_rows)
            digests.append(_sha256(piece))
    return b"".join(digests)


def _pieces(tables: Iterator[pa.Table], piece_rows: int) -> Iterator[pa.Table]:
    waiting = CLEAN_SCHEMA.empty_table()
    for table in tables:
        waiting = pa.concat_tables([waiting, table])
        for _ in range(waiting.num_rows // piece_rows):
            yield waiting.slice(0, piece_rows).combine_chunks()
            waiting = waiting.slice(piece_rows)
    if waiting.num_rows:
        yield waiting.combine_chunks()


def _sha256(table: pa.Table) -> bytes:
    """Over lengths and bytes of the sources, then of the targets: no two tables run together."""
    digest = hashlib.sha256()
    for name in CLEAN_SCHEMA.names:
        texts = table[name].combine_chunks().cast(pa.large_binary())
        offsets = np.frombuffer(texts.buffers()[1], np.int64)[texts.offset :][: len(texts) + 1]
        digest.update(np.diff(offsets).tobytes())
        digest.update(memoryview(texts.buffers()[2])[offsets[0] : offsets[-1]])
    return digest.digest()
