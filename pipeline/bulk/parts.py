"""The output of a long translation: parts that are whole or absent, and what they mean.

    OUTPUT/_manifest.json                  first: what the parts are, so that no others get mixed in
    OUTPUT/part-PART-FIRST-ROWS.parquet    the rows from FIRST on of one part of the input
    OUTPUT/_SUCCESS                        last, with the counts
    OUTPUT/.writing/                       what is not whole yet; gone at the end

The name says which rows a part holds, so that the listing says what is left to do, and who does a
part a second time replaces it by the same. Sorted by name, the rows are in the order of the input.
Readers of Parquet folders pass over names that begin with _ or a dot.
"""

import json
import os
import re
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileSystem, FileType

from heliograph.pipeline.request.errors import RequestError, one_line
from heliograph.pipeline.storage.filesystems import filesystem_of
from heliograph.pipeline.storage.listing import list_folder

MANIFEST, SUCCESS, WRITING = "_manifest.json", "_SUCCESS", ".writing"
PART_BYTES = 32 * 1024**2
"""Of the input's rows in memory; a part is cut earlier where they are so large."""

_FAILED = b"failed"
_NAME = re.compile(r"part-(\d+)-(\d+)-(\d+)\.parquet")
_READERS = 16


class Span(NamedTuple):
    """Consecutive rows of one part of the input."""

    part: int
    first: int
    rows: int

    @property
    def name(self) -> str:
        return f"part-{self.part:05}-{self.first:012}-{self.rows:05}.parquet"


def cut(tables: Iterable[pa.Table], rows: int) -> Iterator[tuple[int, pa.Table]]:
    """The tables as spans of `rows` rows, or fewer of PART_BYTES, each with the number of its first
    row. Where they are cut depends on the rows alone."""
    first, waiting, count, size = 0, list[pa.Table](), 0, 0
    for table in chain.from_iterable(map(_small, tables)):
        while table.num_rows:
            some = table.slice(0, rows - count)
            if waiting and (count == rows or size + some.nbytes > PART_BYTES):
                yield first, pa.concat_tables(waiting)
                first, waiting, count, size = first + count, [], 0, 0
                continue
            waiting.append(some)
            count, size = count + some.num_rows, size + some.nbytes
            table = table.slice(some.num_rows)
    if waiting:
        yield first, pa.concat_tables(waiting)


def _small(table: pa.Table) -> Iterator[pa.Table]:
    """The table, halved until each piece has at most PART_BYTES, or is one row."""
    if table.num_rows < 2 or table.nbytes <= PART_BYTES:
        yield table
        return
    middle = table.num_rows // 2
    yield from _small(table.slice(0, middle))
    yield from _small(table.slice(middle))


@dataclass(frozen=True)
class PartsFolder:
    """Where the parts are. Small, so that it can be sent to any worker."""

    filesystem: FileSystem
    path: str

    @classmethod
    def at(cls, location: str) -> "PartsFolder":
        """A local path or a URL; nothing has to be there yet."""
        filesystem, path = filesystem_of(location)
        return cls(filesystem, path.rstrip("/"))

    def summary(self) -> dict[str, Any] | None:
        """What `finish` wrote; None: not all is done."""
        return self._read_json(SUCCESS)

    def manifest(self) -> dict[str, Any] | None:
        """What `begin` wrote.

        Raises:
            RequestError: nothing was begun here, and yet there is something.
        """
        if self.filesystem.get_file_info(self.path).type == FileType.File:
            raise RequestError(f"output {self.path!r} is a file: name a new or empty folder")
        manifest = self._read_json(MANIFEST)
        if manifest is None and self._names():
            raise RequestError(
                f"output {self.path!r} holds other files, and no translation that was begun: name "
                "a new or empty folder"
            )
        return manifest

    def begin(self, manifest: Mapping[str, Any]) -> None:
        """Make the folder, and say what its parts are going to be.

        Raises:
            RequestError: the folder cannot be written to.
        """
        try:
            self._write_json(MANIFEST, manifest)
        except (OSError, pa.ArrowException) as error:
            raise RequestError(
                f"output {self.path!r} cannot be written to: {one_line(error)}"
            ) from error

    def done(self) -> dict[int, set[Span]]:
        """The spans that are there, by their part of the input."""
        spans: dict[int, set[Span]] = defaultdict(set)
        for match in filter(None, map(_NAME.fullmatch, self._names())):
            span = Span(*map(int, match.groups()))
            spans[span.part].add(span)
        return spans

    def write(self, span: Span, table: pa.Table, failed: Mapping[str, int]) -> None:
        """The part that holds this span; `failed` is kept with it: its failures by reason."""
        metadata = {_FAILED: json.dumps(failed).encode()}
        buffer = pa.BufferOutputStream()
        pq.write_table(table.replace_schema_metadata(metadata), buffer, compression="zstd")
        self._write_whole(span.name, buffer.getvalue())

    def failed(self, spans: Iterable[Span]) -> Counter[str]:
        """The failures of parts that are there, by reason, from the files' ends."""

        def of_span(span: Span) -> Counter[str]:
            path = f"{self.path}/{span.name}"
            metadata = pq.read_schema(path, filesystem=self.filesystem).metadata or {}
            return Counter(json.loads(metadata.get(_FAILED, b"{}")))

        with ThreadPoolExecutor(_READERS) as readers:
            return sum(readers.map(of_span, spans), Counter())

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Say that all is done. What was left half written by those who were killed is removed."""
        self._write_json(SUCCESS, summary)
        with suppress(OSError):
            self.filesystem.delete_dir(f"{self.path}/{WRITING}")

    def _names(self) -> list[str]:
        found = list_folder(self.filesystem, self.path)
        return [info.base_name for info in found if info.base_name != WRITING]

    def _read_json(self, name: str) -> dict[str, Any] | None:
        path = f"{self.path}/{name}"
        if self.filesystem.get_file_info(path).type != FileType.File:
            return None
        with self.filesystem.open_input_stream(path) as stream:
            return dict(json.loads(stream.read()))

    def _write_json(self, name: str, content: Mapping[str, Any]) -> None:
        self._write_whole(name, json.dumps(content, ensure_ascii=False, indent=2).encode())

    def _write_whole(self, name: str, content: bytes | pa.Buffer) -> None:
        """Under another name first; on a local disk down to it, in case the power fails."""
        # It is gone if another driver has finished meanwhile.
        self.filesystem.create_dir(f"{self.path}/{WRITING}", recursive=True)
        temporary = f"{self.path}/{WRITING}/{uuid.uuid4().hex}"
        with self.filesystem.open_output_stream(temporary) as stream:
            stream.write(content)
        if self.filesystem.type_name == "local":
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
        self.filesystem.move(temporary, f"{self.path}/{name}")


def check_same(before: Mapping[str, Any], now: Mapping[str, Any], output: str) -> None:
    """Refuse to go on with what was begun otherwise.

    Raises:
        RequestError: a setting differs; the message names each, then and now.
    """
    then, today = dict(_leaves(before)), dict(_leaves(now))
    different = [
        f"{key}: {_difference(then.get(key), today.get(key))}"
        for key in {**then, **today}
        if then.get(key) != today.get(key)
    ]
    if different:
        raise RequestError(
            f"output {output!r} was begun with other settings, and its parts must all mean the "
            f"same ({'; '.join(different)}): ask for those again, or name another folder"
        )


def _leaves(pins: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in pins.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _difference(then: Any, now: Any) -> str:
    if isinstance(then, list) and isinstance(now, list):  # of lists the first that differs
        pairs = zip_longest(then, now)
        then, now = next((one, other) for one, other in pairs if one != other)
    return " then, ".join(map(_shown, (then, now))) + " now"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:100]} … {text[-90:]}"
