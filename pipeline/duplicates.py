"""Equal pairs, found within bounded memory: all but the first in the corpus' order are duplicates.

    FOLDER/hashes-INDEX.arrow             of one stretch, a record batch per bucket
    FOLDER/duplicates-BUCKET-SHARE.arrow  rows to be left out, a record batch per stretch

A bucket is a fixed share of all hashes. A task per stretch writes the hashes of its pairs, bucket
by bucket; a task per bucket (per share of a bucket, if the corpus is huge) reads it from all
stretches and notes, stretch by stretch, the rows whose hash came before. So no process ever holds
more than one stretch's or one share's hashes, and the result depends on the pairs and their order
alone.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.stretches import Stretch, Workshop

_HASHES = pa.schema([("high", pa.uint64()), ("low", pa.uint64()), ("row", pa.int32())])
_ROWS = pa.schema([("row", pa.int32())])


@dataclass(frozen=True)
class Selection:
    """The pairs of all stretches but for the duplicates, numbered through. Goes to each task."""

    workshop: Workshop
    stretches: tuple[Stretch, ...]
    """In the corpus' order."""
    rows: NDArray[np.int64]
    """Of each stretch, without its duplicates."""
    files: tuple[str, ...] = ()
    """Where the duplicates are noted."""

    @classmethod
    def of_all(cls, workshop: Workshop, stretches: Sequence[Stretch]) -> "Selection":
        """With the duplicates."""
        rows = np.array([stretch.rows for stretch in stretches], np.int64)
        return cls(workshop, tuple(stretches), rows)

    @property
    def total(self) -> int:
        return int(self.rows.sum())

    def read(self, first: int, end: int) -> Iterator[pa.Table]:
        """The selection's pairs number `first` to `end`, one moderate table after the other."""
        ends = np.cumsum(self.rows)
        for index in range(int(np.searchsorted(ends, first, "right")), len(ends)):
            start = int(ends[index] - self.rows[index])
            if start >= end:
                return
            used = self._used(index)
            rows = np.flatnonzero(used)[max(first - start, 0) : end - start]
            if not len(rows):
                continue
            row = int(rows[0])
            for table in self.workshop.read(self.stretches[index], row, int(rows[-1]) + 1):
                yield table.filter(pa.array(used[row : row + table.num_rows]))
                row += table.num_rows

    def _used(self, index: int) -> NDArray[np.bool_]:
        """Whether each row of a stretch is selected."""
        used = np.ones(self.stretches[index].rows, np.bool_)
        for file in self.files:
            used[_read(self.workshop, file, index)[0]] = False
        return used


@dataclass(frozen=True)
class Buckets:
    """How hashes are cut; the result is the same for any numbers."""

    count: int = 64
    task_rows: int = 2_000_000
    """Hashes that a task compares at once, of about 100 bytes of memory each."""


def without_duplicates(
    workshop: Workshop, stretches: Sequence[Stretch], buckets: Buckets = Buckets()
) -> Selection:
    """Each pair of all stretches where it comes first. Ray tasks find the others."""
    import ray

    everything = Selection.of_all(workshop, stretches)
    whole = ray.put(everything)
    write = ray.remote(_write_hashes)
    ray.get([write.remote(whole, index, buckets.count) for index in range(len(stretches))])
    shares = -(-everything.total // (buckets.count * buckets.task_rows))
    find = ray.remote(_find)
    found = ray.get(
        [
            find.remote(whole, bucket, share, shares)
            for bucket in range(buckets.count)
            for share in range(shares)
        ]
    )
    files = tuple(file for file, rows in found if rows.any())
    rows = everything.rows - sum(rows for _, rows in found)
    return replace(everything, rows=rows, files=files)


def pair_hashes(pairs: pa.Table) -> NDArray[np.uint64]:
    """128 bits of BLAKE2b for each pair, [n, 2], over the length of the source and both texts: that
    10 million different pairs have one in common has a probability of 10 ** -25."""
    sides = (pairs[side].cast(pa.binary()).to_pylist() for side in ("source", "target"))
    digests = b"".join(
        blake2b(b"%d %b%b" % (len(source), source, target), digest_size=16).digest()
        for source, target in zip(*sides, strict=True)
    )
    return np.frombuffer(digests, "<u8").reshape(-1, 2)


def _write_hashes(everything: Selection, index: int, buckets: int) -> None:
    """Write the hashes of one stretch, a record batch per bucket."""
    workshop, stretch = everything.workshop, everything.stretches[index]
    tables = workshop.read(stretch, 0, stretch.rows)
    hashes = np.concatenate([pair_hashes(table) for table in tables])
    bucket = (hashes[:, 0] % np.uint64(buckets)).astype(np.int64)
    order = np.argsort(bucket, kind="stable")  # within a bucket the rows stay in order
    ends = np.cumsum(np.bincount(bucket, minlength=buckets))
    columns = [*hashes[order].T, order.astype(np.int32)]
    batches = zip(*(np.split(column, ends[:-1]) for column in columns), strict=True)
    _write(workshop, f"hashes-{index}.arrow", _HASHES, batches)


def _find(
    everything: Selection, bucket: int, share: int, shares: int
) -> tuple[str, NDArray[np.int64]]:
    """Note the duplicates of one share of a bucket; returns the file, and how many of each
    stretch."""
    workshop, stretches = everything.workshop, range(len(everything.stretches))
    mine = []
    for index in stretches:
        high, low, row = _read(workshop, f"hashes-{index}.arrow", bucket)
        some = low % np.uint64(shares) == share
        mine.append((high[some], low[some], row[some]))
    high, low, row = (np.concatenate(column) for column in zip(*mine, strict=True))
    order = np.lexsort([low, high])  # stable, so equal hashes stay in the corpus' order
    high, low = high[order], low[order]
    later = np.sort(order[1:][(high[1:] == high[:-1]) & (low[1:] == low[:-1])])
    ends = np.searchsorted(later, np.cumsum([len(rows) for *_, rows in mine]))
    by_stretch = np.split(row[later], ends[:-1])
    file = f"duplicates-{bucket}-{share}.arrow"
    _write(workshop, file, _ROWS, ([rows] for rows in by_stretch))
    return file, np.array([len(rows) for rows in by_stretch])


def _write(
    workshop: Workshop, file: str, schema: pa.Schema, batches: Iterable[Sequence[NDArray[Any]]]
) -> None:
    path = f"{workshop.folder}/{file}"
    with (
        workshop.filesystem.open_output_stream(path) as stream,
        pa.ipc.new_file(stream, schema) as writer,
    ):
        for columns in batches:
            arrays = [pa.array(np.ascontiguousarray(column)) for column in columns]
            writer.write_batch(pa.record_batch(arrays, schema))


def _read(workshop: Workshop, file: str, batch: int) -> list[NDArray[Any]]:
    """The columns of one record batch; nothing else of the file is read."""
    with workshop.filesystem.open_input_file(f"{workshop.folder}/{file}") as opened:
        columns = pa.ipc.open_file(opened).get_batch(batch).columns
        return [column.to_numpy() for column in columns]
