"""Equal pairs, found within bounded memory: all but the first in the corpus' order are duplicates.

    FOLDER/hashes-GROUP.arrow       of the pairs of a group of stretches, a record batch per bucket
    FOLDER/repeated-GROUP.arrow     rows of a group whose pair came before within the group
    FOLDER/later-BUCKET.arrow       rows whose pair came in an earlier group, a record batch each
    FOLDER/duplicates-INDEX.arrow   all of these of one stretch

A bucket is a fixed share of all hashes, and a group is a few stretches. A task per group writes its
hashes, each of them once; a task per bucket reads the bucket from all groups; a task per group puts
together what was found of it. So no process ever holds more than one group's or one bucket's
hashes, also where one pair is there a million times; each hash is read once; and the result depends
on the pairs and their order alone. Twice groups times buckets is how often a file is opened: half a
million times for a billion pairs (issue 15, point 9).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from heliograph.pipeline.corpus.stretches import Stretch, Workshop

_ROW = pa.field("row", pa.int32())
"""Of a group or of a stretch."""
_HASHES = pa.schema([("high", pa.uint64()), ("low", pa.uint64()), _ROW])
_ROWS = pa.schema([_ROW])


@dataclass(frozen=True)
class Selection:
    """The pairs of all stretches but for the duplicates, numbered through. Goes to each task."""

    workshop: Workshop
    stretches: tuple[Stretch, ...]
    """In the corpus' order."""
    rows: NDArray[np.int64]
    """Of each stretch, without its duplicates."""

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
        if self.rows[index] < len(used):
            used[_read(self.workshop, f"duplicates-{index}.arrow")[0]] = False
        return used


@dataclass(frozen=True)
class Cut:
    """How large tasks are; the result is the same for any numbers."""

    tasks: int = 64
    """So many at least, where there are enough pairs: as many may work at once."""
    smallest: int = 50_000
    largest: int = 2_000_000
    """Hashes of a task, of about 100 bytes of memory each."""

    def sizes(self, total: int) -> int:
        """Pairs of a group, and hashes of a bucket."""
        return min(self.largest, max(self.smallest, -(-total // self.tasks)))


def without_duplicates(
    workshop: Workshop, stretches: Sequence[Stretch], cut: Cut = Cut()
) -> Selection:
    """Each pair of all stretches where it comes first. Ray tasks find the others."""
    import ray

    everything = Selection.of_all(workshop, stretches)
    if not everything.total:
        return everything
    size = cut.sizes(everything.total)
    groups = _groups(everything.rows.tolist(), size)
    buckets = -(-everything.total // size)
    whole = ray.put(everything)
    write, find, gather = map(ray.remote, (_write_hashes, _find, _gather))
    ray.get([write.remote(whole, *group, buckets) for group in enumerate(groups)])
    ray.get([find.remote(whole, len(groups), bucket) for bucket in range(buckets)])
    counts = ray.get([gather.remote(whole, *group, buckets) for group in enumerate(groups)])
    return replace(everything, rows=everything.rows - np.concatenate(counts))


def _groups(rows: Sequence[int], size: int) -> list[range]:
    """Consecutive stretches of at most `size` rows together, and one at least."""
    groups: list[range] = []
    together = 0
    for index, some in enumerate(rows):
        if groups and together + some <= size:
            groups[-1] = range(groups[-1].start, index + 1)
            together += some
        else:
            groups.append(range(index, index + 1))
            together = some
    return groups


def pair_hashes(pairs: pa.Table) -> NDArray[np.uint64]:
    """128 bits of BLAKE2b for each pair, [n, 2], over the length of the source and both texts: that
    10 million different pairs have one in common has a probability of 10 ** -25."""
    sides = (pairs[side].cast(pa.binary()).to_pylist() for side in ("source", "target"))
    digests = b"".join(
        blake2b(b"%d %b%b" % (len(source), source, target), digest_size=16).digest()
        for source, target in zip(*sides, strict=True)
    )
    return np.frombuffer(digests, "<u8").reshape(-1, 2)


def _write_hashes(everything: Selection, group: int, stretches: range, buckets: int) -> None:
    """Write each hash of these stretches once, a record batch per bucket."""
    workshop = everything.workshop
    mine = [everything.stretches[index] for index in stretches]
    tables = (table for each in mine for table in workshop.read(each, 0, each.rows))
    hashes = np.concatenate([pair_hashes(table) for table in tables])
    rows, again = _first_and_later(hashes[:, 0], hashes[:, 1])
    _write(workshop, f"repeated-{group}.arrow", _ROWS, [[np.sort(again)]])
    bucket = (hashes[rows, 0] % np.uint64(buckets)).astype(np.int64)
    order = np.argsort(bucket, kind="stable")
    ends = np.cumsum(np.bincount(bucket, minlength=buckets))
    columns = [*hashes[rows[order]].T, rows[order]]
    batches = zip(*(np.split(column, ends[:-1]) for column in columns), strict=True)
    _write(workshop, f"hashes-{group}.arrow", _HASHES, batches)


def _find(everything: Selection, groups: int, bucket: int) -> None:
    """Note the rows whose hash, one of this bucket, was in an earlier group."""
    workshop = everything.workshop
    found = [_read(workshop, f"hashes-{group}.arrow", bucket) for group in range(groups)]
    high, low, row = (np.concatenate(column) for column in zip(*found, strict=True))
    later = np.sort(_first_and_later(high, low)[1])
    ends = np.searchsorted(later, np.cumsum([len(rows) for *_, rows in found]))
    by_group = np.split(row[later], ends[:-1])
    _write(workshop, f"later-{bucket}.arrow", _ROWS, ([rows] for rows in by_group))


def _gather(everything: Selection, group: int, stretches: range, buckets: int) -> NDArray[np.int64]:
    """Write the duplicates of each of these stretches; returns how many there are."""
    workshop = everything.workshop
    found = [_read(workshop, f"repeated-{group}.arrow")]
    found += [_read(workshop, f"later-{bucket}.arrow", group) for bucket in range(buckets)]
    rows = np.sort(np.concatenate([rows for (rows,) in found]))
    ends = np.cumsum([everything.stretches[index].rows for index in stretches])
    by_stretch = np.split(rows, np.searchsorted(rows, ends[:-1]))
    for index, end, some in zip(stretches, ends, by_stretch, strict=True):
        own = some - (end - everything.stretches[index].rows)
        if len(own):
            _write(workshop, f"duplicates-{index}.arrow", _ROWS, [[own]])
    return np.array([len(some) for some in by_stretch])


def _first_and_later(
    high: NDArray[np.uint64], low: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The positions of the hashes that come here for the first time, and of those that came
    before; neither in order."""
    order = np.lexsort([low, high])  # stable, so equal hashes stay in their order
    high, low = high[order], low[order]
    same = np.zeros(len(order), np.bool_)
    same[1:] = (high[1:] == high[:-1]) & (low[1:] == low[:-1])
    return order[~same], order[same]


def _write(
    workshop: Workshop, file: str, schema: pa.Schema, batches: Iterable[Sequence[NDArray[Any]]]
) -> None:
    path = f"{workshop.folder}/{file}"
    with (
        workshop.filesystem.open_output_stream(path) as stream,
        pa.ipc.new_file(stream, schema) as writer,
    ):
        for columns in batches:
            arrays = [
                pa.array(np.ascontiguousarray(column, field.type.to_pandas_dtype()))
                for column, field in zip(columns, schema, strict=True)
            ]
            writer.write_batch(pa.record_batch(arrays, schema))


def _read(workshop: Workshop, file: str, batch: int = 0) -> list[NDArray[Any]]:
    """The columns of one record batch; nothing else of the file is read."""
    with workshop.filesystem.open_input_file(f"{workshop.folder}/{file}") as opened:
        columns = pa.ipc.open_file(opened).get_batch(batch).columns
        return [column.to_numpy() for column in columns]
