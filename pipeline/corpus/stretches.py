"""The cleaned pairs as they were read, on storage until all are there and their number is known.

    FOLDER/pairs-PART-STRETCH.parquet

A stretch is at most so many consecutive pairs of a part. They are not kept in Ray's object store:
what waits there counts as memory of the process that put it there, and a limit that long texts
reach before a file of pieces is full makes Ray Data 2.60 wait for ever.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileSystem

from heliograph.pipeline.corpus.cleaning import CLEAN_SCHEMA


class Stretch(NamedTuple):
    part: int
    number: int
    """Within the part."""
    rows: int


@dataclass(frozen=True)
class Workshop:
    """Where stretches are kept, and how they are cut. Small: it goes to each task."""

    filesystem: FileSystem
    folder: str
    stretch_rows: int = 500_000

    def write_part(self, part: int, tables: Iterator[pa.Table]) -> Iterator[Stretch]:
        """Write a part's pairs, given its tables of `cleaning.CLEAN_SCHEMA`."""
        for number, slices in groupby(self._slices(tables), itemgetter(0)):
            rows = 0
            with (
                self.filesystem.open_output_stream(self.path(part, number)) as stream,
                pq.ParquetWriter(stream, CLEAN_SCHEMA, compression="lz4", **PLAIN) as writer,
            ):
                for _, some in slices:  # a row group each
                    writer.write_table(some)
                    rows += some.num_rows
            yield Stretch(part, number, rows)

    def read(self, stretch: Stretch, first: int, end: int) -> Iterator[pa.Table]:
        """The stretch's pairs number `first` to `end`, a row group at a time."""
        path = self.path(stretch.part, stretch.number)
        with pq.ParquetFile(path, filesystem=self.filesystem) as file:
            groups = range(file.metadata.num_row_groups)
            ends = np.cumsum([file.metadata.row_group(group).num_rows for group in groups])
            for group in range(int(np.searchsorted(ends, first, "right")), len(groups)):
                start = int(ends[group - 1]) if group else 0
                if start >= end:
                    return
                skip = max(first - start, 0)
                yield file.read_row_group(group).slice(skip, end - start - skip)

    def _slices(self, tables: Iterator[pa.Table]) -> Iterator[tuple[int, pa.Table]]:
        """The tables cut where a stretch ends, each with the stretch's number."""
        row = 0
        for table in tables:
            while table.num_rows:
                number, first = divmod(row, self.stretch_rows)
                some = table.slice(0, self.stretch_rows - first)
                yield number, some
                row += some.num_rows
                table = table.slice(some.num_rows)

    def path(self, part: int, number: int) -> str:
        """Of the file that holds this stretch."""
        return f"{self.folder}/pairs-{part}-{number}.parquet"


PLAIN = {"use_dictionary": False, "write_statistics": False}
"""How text is written to Parquet: hardly a sentence comes twice, and statistics that nobody asks
for make footers large."""
