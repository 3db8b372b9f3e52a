"""What only `datasets` can open, as tables of `rows.SCHEMA`: its stream, shard by shard.

A shard is what the format makes one, mostly a file; each can be read without the others, by a Ray
Data task of its own. `ray.data.from_huggingface` is not used: it reads the whole in one process or
needs the hub's own Parquet copy, and drops what was applied to the stream before.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa

from heliograph.pipeline.request.data import Data, Stream
from heliograph.pipeline.request.errors import RequestError, one_line
from heliograph.pipeline.sources.files import is_hub_name
from heliograph.pipeline.sources.hub import dataset_builder, hub_revision, quiet, split_files
from heliograph.pipeline.sources.lines import BLOCK_BYTES
from heliograph.pipeline.sources.rows import (
    ROWS,
    Columns,
    check_keys,
    leaves_of,
    table_of_batch,
    table_of_dicts,
)
from heliograph.pipeline.sources.whole_rows import schema_of_dicts
from heliograph.pipeline.storage.remote import connection_lost

_STEP = 128
"""Rows that `datasets` is asked for at once: with lines of 1 MB still a moderate amount."""


@dataclass(frozen=True)
class Shards:
    """A split that `datasets` streams. Small, so that it can be sent to any worker."""

    stream: Any
    """Its IterableDataset, which carries endpoint and token."""
    is_arrow: bool
    """Whether it is made of Arrow tables, as most formats are, or of Python objects."""
    names: tuple[str, ...]
    """Each shard's, for messages: its file, where it is one."""
    identity: dict[str, Any]
    """JSON. The same identity means the same data."""

    def tables(
        self, shard: int, columns: Columns, keep: pa.Schema | None = None
    ) -> Iterator[pa.Table]:
        """One shard's tables; `keep` as in `rows.Reading`.

        Raises:
            RequestError: a column is not there or holds no text, the content cannot be read, or the
                connection was lost.
        """
        name, part = self.names[shard], self.stream.shard(len(self.names), shard)
        tables = _from_arrow if self.is_arrow else _from_objects
        with _in_words(name), quiet(), _fewer_retries():
            yield from _joined(tables(part, columns, name, keep))

    def schemas(self, shard: int) -> Iterator[tuple[pa.Schema, int]]:
        """The types of all columns of a shard, and the rows, some rows at a time. Raises as
        `tables`."""
        name, part = self.names[shard], self.stream.shard(len(self.names), shard)
        with _in_words(name), quiet(), _fewer_retries():
            if self.is_arrow:
                for table in part.with_format("arrow").iter(_STEP):
                    yield table.schema, table.num_rows
                return
            rows = iter(part)
            while some := list(islice(rows, _STEP)):
                yield schema_of_dicts(some), len(some)

    def check(self, columns: Columns) -> bool:
        """Whether there are rows, looking at the beginning of the first shard that has some."""
        return any(
            table.num_rows
            for shard in range(len(self.names))
            for table in _first(self.tables(shard, columns))
        )


def open_shards(location: Stream, data: Data, split: str) -> Shards:
    """The split's shards; of their content at most the schema is read.

    Raises:
        RequestError: dataset, configuration, revision, split or files are not there.
    """
    path, files, revision = location.stream, location.files, None
    if _is_format(path):
        if not files:
            raise RequestError(
                f"{path!r} is a format: say which files, {{stream: {path}, files: …}}"
            )
    elif os.path.isdir(path):
        path = os.path.abspath(path)
    elif is_hub_name(path):
        revision = hub_revision(path, data.revision)
    else:
        raise RequestError(f"{path!r} is no hub dataset, folder or format that `datasets` knows")
    patterns = [files] if isinstance(files, str) else files
    builder = dataset_builder(
        path, data.configuration, revision, {split: patterns} if patterns else None
    )
    found = split_files(builder, split, location.stream) if builder.config.data_files else []
    with _in_words(location.stream), quiet(), _fewer_retries():
        stream = builder.as_streaming_dataset(split=split)
    names = [f"{location.stream} shard {number}" for number in range(stream.num_shards)]
    identity = {
        "stream": location.stream,
        "split": split,
        "configuration": data.configuration,
        "revision": revision,
        "files": _described(found, builder, split),
    }
    from datasets import ArrowBasedBuilder

    names = found if len(found) == len(names) else names
    return Shards(stream, isinstance(builder, ArrowBasedBuilder), tuple(names), identity)


def _is_format(name: str) -> bool:
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

    return name in _PACKAGED_DATASETS_MODULES and not os.path.isdir(name)


def _described(found: list[str], builder: Any, split: str) -> list[dict[str, Any]]:
    """Local files by size and time of change, others by what `datasets` knows of their version."""
    if not found:
        return []
    files: list[dict[str, Any]] = []
    origins = builder.config.data_files[split].origin_metadata
    for path, origin in zip(found, origins, strict=True):
        if os.path.exists(path):
            status = os.stat(path)
            files.append({"path": path, "size": status.st_size, "modified": status.st_mtime_ns})
        else:
            files.append({"path": path, "origin": [str(part) for part in origin]})
    return files


def _from_arrow(
    part: Any, columns: Columns, name: str, keep: pa.Schema | None
) -> Iterator[pa.Table]:
    leaves = None
    for table in part.with_format("arrow").iter(_STEP):
        leaves = leaves or leaves_of(table.schema, columns, name)
        for batch in table.to_batches():
            yield table_of_batch(batch, leaves, keep)


def _from_objects(
    part: Any, columns: Columns, name: str, keep: pa.Schema | None
) -> Iterator[pa.Table]:
    rows, checked = iter(part), False
    while some := list(islice(rows, _STEP)):
        if not checked:
            check_keys(some, columns, name)
            checked = True
        yield table_of_dicts(some, columns, keep)


def _joined(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Fewer and larger ones: about ROWS rows or BLOCK_BYTES, whichever is reached first."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        rows = sum(each.num_rows for each in waiting)
        if rows >= ROWS or sum(each.nbytes for each in waiting) >= BLOCK_BYTES:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _first(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    for table in tables:
        yield table
        return


@contextmanager
def _in_words(name: str) -> Iterator[None]:
    """Whatever `datasets` and what it reads with raise, as a RequestError that names the shard."""
    try:
        yield
    except (RequestError, GeneratorExit, MemoryError):
        raise
    except Exception as error:
        from datasets.utils.file_utils import CONNECTION_ERRORS_TO_RETRY
        from huggingface_hub.errors import HfHubHTTPError

        if isinstance(error, (ConnectionError, HfHubHTTPError, *CONNECTION_ERRORS_TO_RETRY)):
            raise connection_lost(name, error) from error
        kind = type(error).__name__
        raise RequestError(f"{name!r} cannot be read: {kind}: {one_line(error)}") from error


@contextmanager
def _fewer_retries() -> Iterator[None]:
    """The hub's client already tries six times within half a minute; `datasets` would multiply that
    by twenty, and wait five seconds in between."""
    from datasets import config

    few = {
        "STREAMING_READ_MAX_RETRIES": 1,
        "STREAMING_OPEN_MAX_RETRIES": 1,
        "STREAMING_READ_RETRY_INTERVAL": 0,
        "STREAMING_OPEN_RETRY_INTERVAL": 0,
    }
    before = {name: getattr(config, name) for name in few}
    for name, value in few.items():
        setattr(config, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(config, name, value)
