"""The cleaned pairs of one split on storage, in pieces that can be read in any order.

    storage/corpora/KEY/manifest.json        written last: without it there is no corpus
    storage/corpora/KEY/ATTEMPT/part-*.parquet

Ray tasks read and clean (`readings`), then write (`pieces`); the driver sees a line per file and
never the text. KEY is a hash of what determines the corpus, so that a prepared one is found again
without reading the source; each start writes to an ATTEMPT folder of its own, so that two of them
cannot spoil each other's.
"""

import hashlib
import json
import uuid
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileSystem, FileType

from heliograph.pipeline.cluster.nodes import check_seen, check_shared
from heliograph.pipeline.corpus.cleaning import (
    CLEAN_SCHEMA,
    CLEANING_OPTIONS,
    CLEANING_VERSION,
    NORMALIZED,
    SEEN,
    Limit,
    check_losses,
    count,
    judge_part,
    kept,
)
from heliograph.pipeline.corpus.duplicates import Selection, without_duplicates
from heliograph.pipeline.corpus.found_data import FoundData, KnownSource, remember
from heliograph.pipeline.corpus.pieces import write_pieces
from heliograph.pipeline.corpus.readings import Reading, begin_reading, delete_abandoned
from heliograph.pipeline.corpus.stretches import Stretch
from heliograph.pipeline.request.data import Data
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.sources.source import Source
from heliograph.pipeline.storage.filesystems import absolute, filesystem_of


class Piece(NamedTuple):
    file: str
    """Relative to the corpus' folder."""
    row_group: int
    rows: int
    first_row: int
    """The number of its first pair in the whole corpus."""


@dataclass(frozen=True)
class Corpus:
    """What the manifest says. Small, so that it can be sent to any worker."""

    folder: str
    rows: int
    digest: str
    """sha256 over the pieces' sha256, each of which is over its pairs: for the same `piece_rows`,
    equal exactly when the pairs and their order are."""
    seen: int
    """Rows that were read; those that are not among `rows` are in `dropped`."""
    dropped: dict[str, int]
    """Reason → count; the reasons are in `cleaning`."""
    changed: dict[str, int]
    """{"normalized": pairs that data.unicode changed, duplicates included}, if that is set."""
    identity: dict[str, Any]
    """What the source was: location, revision or files; and where reading ended, if that was
    before its end: `max_rows`, or `positions` as in `cleaning.Limit`."""
    piece_rows: int
    files: tuple[tuple[str, int], ...]
    """Name and rows of each, in order."""

    @property
    def piece_count(self) -> int:
        return -(-self.rows // self.piece_rows)

    def piece(self, number: int) -> Piece:
        """The piece of this number; they are numbered through in the corpus' order."""
        file = bisect_right(self._first_pieces, number) - 1
        group, first_row = number - self._first_pieces[file], number * self.piece_rows
        rows = min(self.piece_rows, self.rows - first_row)
        return Piece(self.files[file][0], group, rows, first_row)

    @cached_property
    def _first_pieces(self) -> tuple[int, ...]:
        """Of each file. Whole pieces fill every file but the last."""
        pieces = (-(-rows // self.piece_rows) for _, rows in self.files)
        return tuple(accumulate(pieces, initial=0))[:-1]

    @classmethod
    def load(cls, folder: str) -> "Corpus":
        """A prepared corpus; raises FileNotFoundError if there is none in this folder."""
        filesystem, path = filesystem_of(folder)
        with filesystem.open_input_stream(f"{path}/manifest.json") as stream:
            manifest = json.loads(stream.read())
        files = tuple((name, rows) for name, rows in manifest.pop("files"))
        return cls(folder=folder, files=files, **manifest)

    def read(self, piece_numbers: Sequence[int]) -> pa.Table:
        """The pairs of these pieces, one piece after the other as asked: {pair: int64, source:
        string, target: string}, `pair` being the pair's number in the whole corpus."""
        filesystem, path = filesystem_of(self.folder)
        pieces = [self.piece(number) for number in piece_numbers]
        groups = defaultdict(set)
        for piece in pieces:
            groups[piece.file].add(piece.row_group)
        tables: dict[tuple[str, int], pa.Table] = {}
        for file, numbers in groups.items():  # each is opened once, and read from front to back
            with pq.ParquetFile(f"{path}/{file}", filesystem=filesystem) as opened:
                for group in sorted(numbers):
                    tables[file, group] = opened.read_row_group(group)
        if not pieces:
            return PAIR_SCHEMA.empty_table()
        rows = [np.arange(piece.first_row, piece.first_row + piece.rows) for piece in pieces]
        table = pa.concat_tables(tables[piece.file, piece.row_group] for piece in pieces)
        return table.add_column(0, PAIR_SCHEMA.field("pair"), pa.array(np.concatenate(rows)))

    def head(self, n: int | None) -> list[tuple[str, str]]:
        """The first n pairs; None: all of them, in memory."""
        wanted = self.rows if n is None else min(n, self.rows)
        table = self.read(range(-(-wanted // self.piece_rows))).slice(0, wanted)
        return list(zip(table["source"].to_pylist(), table["target"].to_pylist(), strict=True))


PAIR_SCHEMA = pa.schema([("pair", pa.int64()), *CLEAN_SCHEMA])


def prepare_corpus(
    found: FoundData,
    piece_rows: int,
    storage: str,
    enough: int | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Corpus:
    """A data set's cleaned corpus: on storage already, or read, cleaned and written there now.

    Args:
        tell: is told of files that are not used, though they look it; and that the source cannot
            be reached, where its corpus was prepared before.
        enough: positions in the model that training will use. A stream, of which nobody knows how
            long it is, is read until its pairs surely have as many.

    Raises:
        RequestError: the source cannot be read, nothing of it is left, or more than
            `data.max_dropped_share` was dropped. No corpus is left on storage, but what was read
            is, for a day: see `readings`.
    """
    storage = absolute(storage)
    source, data = found.source, found.data
    if not isinstance(source, Source):
        return _prepared_before(found, source, piece_rows, storage, enough, tell)
    if files := getattr(source.origin, "passed_over", ()):
        tell(f"{source.name}: in no split, though named like one: {', '.join(files)}")
    limit = Limit(data.max_rows, enough if source.unbounded else None)
    folder = _folder(source.identity, data, limit, piece_rows, storage)
    try:
        corpus = Corpus.load(folder)
    except FileNotFoundError:
        corpus = _write_corpus(source, data, limit, piece_rows, folder)
    else:
        check_losses(corpus.seen, corpus.dropped, data.max_dropped_share, source.name)
    remember(storage, found)
    filesystem, path = filesystem_of(corpus.folder)
    own = frozenset(name.partition("/")[0] for name, _ in corpus.files)
    delete_abandoned(filesystem, path, own)
    return corpus


def _prepared_before(
    found: FoundData,
    known: KnownSource,
    piece_rows: int,
    storage: str,
    enough: int | None,
    tell: Callable[[str], None],
) -> Corpus:
    limit = Limit(found.data.max_rows, enough if known.unbounded else None)
    folder = _folder(known.identity, found.data, limit, piece_rows, storage)
    try:
        corpus = Corpus.load(folder)
    except FileNotFoundError:  # the corpus was deleted, or was prepared in another way
        assert found.away is not None
        raise found.away from None
    tell(f"{found.away}; goes on from the {corpus.rows:,} pairs prepared of it on {known.prepared}")
    return corpus


def _folder(
    identity: dict[str, Any], data: Data, limit: Limit, piece_rows: int, storage: str
) -> str:
    parts = {
        "identity": _limited(identity, limit),
        "options": data.model_dump(include={*CLEANING_OPTIONS, "drop_duplicates"}),
        "piece_rows": piece_rows,
        "version": CLEANING_VERSION,
    }
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]
    return f"{storage.rstrip('/')}/corpora/{key}"


def _limited(identity: dict[str, Any], limit: Limit) -> dict[str, Any]:
    limits = {"max_rows": limit.rows, "positions": limit.positions}
    return identity | {name: value for name, value in limits.items() if value is not None}


def _write_corpus(source: Source, data: Data, limit: Limit, piece_rows: int, folder: str) -> Corpus:
    storage = folder.rpartition("/corpora/")[0]
    reading, whole = begin_reading(source, data, limit, storage), False
    filesystem, path = filesystem_of(folder)
    attempt = uuid.uuid4().hex[:12]
    check_seen(source.local_files)
    try:
        stretches, counts = _read_and_clean(source, data, limit, reading)
        seen, normalized = counts.pop(SEEN, 0), counts.pop(NORMALIZED, 0)
        dropped = {reason: counts[reason] for reason in sorted(counts)}
        check_losses(seen, dropped, data.max_dropped_share, source.name)
        selection = Selection.of_all(reading.workshop, stretches)
        if data.drop_duplicates:
            everything, selection = selection, without_duplicates(reading.workshop, stretches)
            if duplicates := everything.total - selection.total:
                dropped["duplicate"] = duplicates
            check_losses(seen, dropped, data.max_dropped_share, source.name)
        filesystem.create_dir(f"{path}/{attempt}", recursive=True)
        written = write_pieces(selection, piece_rows, path, attempt)
        corpus = Corpus(
            folder=folder,
            rows=selection.total,
            digest=written.digest,
            seen=seen,
            dropped=dropped,
            changed={NORMALIZED: normalized} if data.unicode else {},
            identity=_limited(source.identity, limit),
            piece_rows=piece_rows,
            files=written.files,
        )
        corpus = _commit(corpus, filesystem, path, attempt)
        whole = True
        return corpus
    except BaseException as error:
        with suppress(OSError):
            filesystem.delete_dir(f"{path}/{attempt}")
        if isinstance(error, OSError):  # a node that came since may not see what others wrote
            check_shared(storage, "storage")
        raise
    finally:
        reading.end(whole=whole)


def _commit(corpus: Corpus, filesystem: FileSystem, path: str, attempt: str) -> Corpus:
    """Make the corpus exist, unless another start has done so meanwhile: then that one is it."""
    manifest = f"{path}/manifest.json"
    if filesystem.get_file_info(manifest).type == FileType.NotFound:
        content = {key: value for key, value in asdict(corpus).items() if key != "folder"}
        with filesystem.open_output_stream(f"{path}/{attempt}/manifest.json") as stream:
            stream.write(json.dumps(content).encode())
        filesystem.move(f"{path}/{attempt}/manifest.json", manifest)
        return corpus
    filesystem.delete_dir(f"{path}/{attempt}")
    return Corpus.load(corpus.folder)


# --- Ray tasks: read and clean, find duplicates, write ------------------------------------------


def _read_and_clean(
    source: Source, data: Data, limit: Limit, reading: Reading
) -> tuple[list[Stretch], Counter[str]]:
    """Write what is kept of each part; return its stretches in order, and what was counted."""
    import ray

    parts = len(source.parts)

    def clean(part: int, tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
        counts: Counter[str] = Counter()
        name = "".join(source.parts[part].entry[:1])

        def pairs() -> Iterator[pa.Table]:
            for judged in judge_part(tables, data, limit.share(part, parts), name):
                counts.update(count(judged))
                yield kept(judged)

        def read() -> dict[str, Any]:
            stretches = [each._asdict() for each in reading.workshop.write_part(part, pairs())]
            return {"stretches": stretches, "counts": dict(counts)}

        yield pa.table({"facts": [json.dumps(reading.part(part, read))]})

    try:
        rows = [json.loads(row["facts"]) for row in source.dataset(clean).iter_rows()]
    except ray.exceptions.RayError as error:
        raise _request_error(error) or error from None
    stretches = [Stretch(**each) for row in rows for each in row["stretches"]]
    return stretches, sum((Counter(row["counts"]) for row in rows), Counter())


def _request_error(error: BaseException) -> RequestError | None:
    """The RequestError that a task raised, found inside what Ray made of it: Ray Data adds lines of
    its own to the message, which is one line."""
    cause: BaseException | None = error
    while cause is not None:
        if type(cause) is RequestError:
            return RequestError(str(cause).partition("\n")[0])
        cause = getattr(cause, "cause", None) or cause.__cause__
    return None
