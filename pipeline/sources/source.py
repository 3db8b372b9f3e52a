"""Hub name, folder or files → a Ray Dataset of {source, target}.

`files` says which files a location means, `formats` how each becomes tables, `shards` does both for
what only `datasets` can open; here they become one stream, read by Ray Data with a task per file or
shard (per some row groups of a large Parquet file), in their order and that of the rows in them.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow.fs import FileSystem

from heliograph.pipeline.request.data import Data, Location, PairOfFiles, Stream
from heliograph.pipeline.request.errors import RequestError, did_you_mean
from heliograph.pipeline.sources.embedded import grammar
from heliograph.pipeline.sources.files import Files, find_files
from heliograph.pipeline.sources.formats import check_entry, format_of, read_entry
from heliograph.pipeline.sources.rows import SCHEMA, Columns, Reading, table_of_batch
from heliograph.pipeline.sources.shards import Shards, open_shards
from heliograph.pipeline.storage.filesystems import in_parallel

if TYPE_CHECKING:
    import ray.data

EMBEDDED = "embedded:"
"""`embedded:train`, `embedded:validation` and `embedded:test` are the corpus inside the package."""
TASK_BYTES = 256 * 1024**2
"""A larger Parquet file is read by several tasks of about this many uncompressed bytes."""

Transform = Callable[[int, Iterator[pa.Table]], Iterator[pa.Table]]
"""What happens to a part's tables right where they are read; given the part's number."""


@dataclass(frozen=True)
class Part:
    """What one task reads."""

    entry: tuple[str, ...]
    """A file, a pair of files, a shard's name, or an embedded corpus."""
    row_groups: range | None = None


@dataclass(frozen=True)
class Source:
    """A split whose files were found. Nothing of their content has been read."""

    parts: tuple[Part, ...]
    origin: Files | Shards | None
    """What reads the parts; None: the embedded corpus."""
    columns: Columns
    identity: dict[str, Any]
    """JSON: what the data is. The same identity means the same pairs in the same order."""
    name: str
    """As the user wrote it, for messages."""

    @property
    def unbounded(self) -> bool:
        """Whether nobody knows before reading how much there is: true of streams."""
        return isinstance(self.origin, Shards)

    @property
    def local_files(self) -> list[str]:
        """Those of this machine's file system that are read."""
        if not isinstance(self.origin, Files) or not self.origin.are_local:
            return []
        return list(dict.fromkeys(path for part in self.parts for path in part.entry))

    def tables(self, part: int, keep: pa.Schema | None = None) -> Iterator[pa.Table]:
        """One part's tables, of `rows.SCHEMA`; with a column `row` of all columns, where `keep` is
        their types. Raises RequestError for what cannot be read."""
        entry = self.parts[part].entry
        if isinstance(self.origin, Shards):
            yield from self.origin.tables(part, self.columns, keep)
        elif self.origin is not None:
            reading = self.reading(self.parts[part], keep)
            yield from read_entry(entry, self.origin.filesystem, reading)
        else:
            pairs = grammar.pairs(_embedded_split(entry[0]))
            sides = [pa.array(side) for side in zip(*pairs, strict=True)]
            batch = pa.RecordBatch.from_arrays(sides, SCHEMA.names[:2])
            yield table_of_batch(batch, SCHEMA.names[:2], keep)

    def reading(self, part: Part, keep: pa.Schema | None = None) -> Reading:
        """What is to be read of a part that is a file, or a pair of them."""
        assert isinstance(self.origin, Files)
        return Reading(self.columns, self.origin.dialect, part.row_groups, keep=keep)

    def dataset(self, transform: Transform) -> "ray.data.Dataset":
        """The transformed tables of all parts, in order, as they are needed."""
        import ray.data

        def read(part: pa.Table) -> Iterator[pa.Table]:
            number = part["id"][0].as_py()
            yield from transform(number, self.tables(number))

        with ray.data.DataContext.current(ordered_context()):
            parts = ray.data.range(len(self.parts), override_num_blocks=len(self.parts))
        return parts.map_batches(read, batch_size=1, batch_format="pyarrow")


def ordered_context() -> "ray.data.DataContext":
    """Settings under which a dataset keeps its order and prints nothing. A dataset keeps those that
    are current when it is made; nobody else's datasets are changed."""
    import ray.data

    # The log is no setting of the context. What fails is raised; the log says it a second time.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current().copy()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    return context


def check_source(source: Source) -> None:
    """Find out, without Ray and from no more than the beginning of each file, whether the split can
    be read; of a stream, from the beginning of its first shard.

    Raises:
        RequestError: a file or column is not there, a file is not what its suffix says, the split
            is empty. For what only a full reading shows, `prepare_corpus` raises it.
    """
    columns, origin = source.columns, source.origin
    if isinstance(origin, Shards):
        filled = origin.check(columns)
    elif origin is not None:
        files, entries = origin, list(dict.fromkeys(part.entry for part in source.parts))

        def has_rows(entry: tuple[str, ...]) -> bool:
            return check_entry(entry, files.filesystem, Reading(columns, files.dialect))

        filled = any(in_parallel(has_rows, entries))
    else:
        filled = True
    if not filled:
        raise RequestError(f"{source.name} is empty: no rows in {len(source.parts)} file(s)")


def read_source(
    location: Location, data: Data, split: str
) -> tuple["ray.data.Dataset", dict[str, Any]]:
    """The split as {source, target, problem} rows, `problem` as in `rows`, and its identity.

    Raises:
        RequestError: something of the location is not there.
    """
    source = find_source(location, data, split)
    return source.dataset(lambda _, tables: tables), source.identity


def find_source(location: Location, data: Data, split: str) -> Source:
    """The split's files and its identity; raises RequestError when they are not there."""
    columns = (data.source, data.target)
    if isinstance(location, str) and location.startswith(EMBEDDED):
        _check_numbers(data, [location])
        return _embedded(location, columns)
    found = find_files(location, data, split)
    origin = open_shards(found, data, split) if isinstance(found, Stream) else found
    identity = origin.identity | {"columns": list(columns)}
    if isinstance(origin, Shards):
        _check_numbers(data, origin.names)
        parts = [Part((name,)) for name in origin.names]
    else:
        files = origin.filesystem
        parts = [*chain(*in_parallel(lambda entry: list(_parts(entry, files)), origin.entries))]
        _check_numbers(data, [part.entry[0] for part in parts])
    if data.columns is not None and isinstance(origin, Files):
        origin = replace(origin, dialect=origin.dialect._replace(numbers=data.columns))
        identity |= {"numbers": list(data.columns)}
    return Source(tuple(parts), origin, columns, identity, describe(location))


def describe(location: Location) -> str:
    """The location as a user wrote it, for messages."""
    if isinstance(location, str):
        return repr(location)
    if isinstance(location, list):
        return ", ".join(repr(path) for path in location)
    if isinstance(location, PairOfFiles):
        return f"{location.source!r} with {location.target!r}"
    files = [location.files] if isinstance(location.files, str) else location.files or []
    return " ".join(["the stream", repr(location.stream), *map(repr, files)])


def _check_numbers(data: Data, files: Iterable[str]) -> None:
    """Raises RequestError where `data.columns` numbers what has names."""
    for file in files if data.columns is not None else ():
        if not {".csv", ".tsv"} & {each.lower() for each in PurePosixPath(file).suffixes}:
            raise RequestError(
                f"data.columns {list(data.columns or ())}: {file!r} has names for its columns; "
                "numbers are for CSV and TSV files without a header"
            )


def _embedded(location: str, columns: Columns) -> Source:
    text = repr(grammar.pairs(_embedded_split(location))).encode()
    identity = {"location": location, "sha256": hashlib.sha256(text).hexdigest()}
    return Source((Part((location,)),), None, columns, identity, describe(location))


def _embedded_split(location: str) -> grammar.Split:
    for split in grammar.SPLITS:
        if location == EMBEDDED + split:
            return split
    valid = [EMBEDDED + split for split in grammar.SPLITS]
    raise RequestError(f"{location!r} is no embedded corpus; {did_you_mean(location, valid)}")


def _parts(entry: tuple[str, ...], filesystem: FileSystem) -> Iterator[Part]:
    """One part, or several for a Parquet file of more than TASK_BYTES."""
    row_groups = format_of(entry[0]).row_groups if len(entry) == 1 else None
    # A file is smaller than its content by the factor of its compression: rarely above ten.
    if row_groups is None or filesystem.get_file_info(entry[0]).size < TASK_BYTES / 10:
        yield Part(entry)
        return
    first, total = 0, 0
    sizes = row_groups(entry[0], filesystem)
    for number, size in enumerate(sizes, 1):
        total += size
        if total >= TASK_BYTES or number == len(sizes):
            yield Part(entry, range(first, number))
            first, total = number, 0
