"""The cleaned pairs of one split on storage, in pieces that can be read in any order.

    storage/corpora/KEY/manifest.json        written last: without it there is no corpus
    storage/corpora/KEY/ATTEMPT/part-*.parquet

A piece is a Parquet row group of exactly `piece_rows` pairs (the last one may be shorter), so that
pieces and digest follow from the pairs alone and not from how Ray cut its blocks. Ray tasks read,
clean and write; the driver sees one line per file and never the text. KEY is a hash of what
determines the corpus, so that a prepared one is found again without reading the source; each start
writes to an ATTEMPT folder of its own, so that two of them cannot spoil each other's.
"""

import hashlib
import json
import os
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileSystem, FileType

from pipeline.cleaning import CLEAN_SCHEMA, CLEANING_VERSION, clean
from pipeline.errors import RequestError
from pipeline.files import filesystem_of
from pipeline.recipe import Data, Location
from pipeline.source import Source, describe, find_source

FILE_ROWS = 65_536
"""Rows of a file, rounded to whole pieces: a task writes this many at once."""


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
    """Rows of the source; those that are not among `rows` are in `dropped`."""
    dropped: dict[str, int]
    """Reason → count; the reasons are in `cleaning`."""
    identity: dict[str, Any]
    """What the source was: location, revision or files."""
    piece_rows: int
    files: tuple[tuple[str, int], ...]
    """Name and rows of each, in order."""

    @cached_property
    def pieces(self) -> tuple[Piece, ...]:
        """The pieces in the corpus' order."""
        pieces, first_row = [], 0
        for file, file_rows in self.files:
            for group, offset in enumerate(range(0, file_rows, self.piece_rows)):
                rows = min(self.piece_rows, file_rows - offset)
                pieces.append(Piece(file, group, rows, first_row + offset))
            first_row += file_rows
        return tuple(pieces)

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
        opened: dict[str, pq.ParquetFile] = {}
        tables = []
        for number in piece_numbers:
            piece = self.pieces[number]
            if piece.file not in opened:
                opened[piece.file] = pq.ParquetFile(f"{path}/{piece.file}", filesystem=filesystem)
            table = opened[piece.file].read_row_group(piece.row_group)
            pairs = pa.array(np.arange(piece.first_row, piece.first_row + piece.rows))
            tables.append(table.add_column(0, PAIR_SCHEMA.field("pair"), pairs))
        return pa.concat_tables(tables) if tables else PAIR_SCHEMA.empty_table()

    def head(self, n: int | None) -> list[tuple[str, str]]:
        """The first n pairs; None: all of them, in memory."""
        wanted = self.rows if n is None else min(n, self.rows)
        table = self.read(range(-(-wanted // self.piece_rows))).slice(0, wanted)
        return list(zip(table["source"].to_pylist(), table["target"].to_pylist(), strict=True))


PAIR_SCHEMA = pa.schema([("pair", pa.int64()), *CLEAN_SCHEMA])


def prepare_corpus(
    location: Location, data: Data, split: str, piece_rows: int, storage: str
) -> Corpus:
    """The split's cleaned corpus: found on storage, or read, cleaned and written there now.

    Raises:
        RequestError: the source cannot be read, nothing of it is left, or more than
            `data.max_dropped_share` was dropped. Nothing stays on storage.
    """
    source = find_source(location, data, split)
    if "://" not in storage:
        storage = os.path.abspath(storage)  # workers run in other folders
    folder = f"{storage.rstrip('/')}/corpora/{_key(source, data, piece_rows)}"
    try:
        corpus = Corpus.load(folder)
    except FileNotFoundError:
        corpus = _write_corpus(source, data, location, piece_rows, folder)
    else:
        _check_losses(corpus.seen, corpus.dropped, data.max_dropped_share, location)
    return corpus


def _key(source: Source, data: Data, piece_rows: int) -> str:
    parts = {
        "identity": source.identity,
        "max_characters": data.max_characters,
        "max_length_ratio": data.max_length_ratio,
        "piece_rows": piece_rows,
        "version": CLEANING_VERSION,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]


def _write_corpus(
    source: Source, data: Data, location: Location, piece_rows: int, folder: str
) -> Corpus:
    filesystem, path = filesystem_of(folder)
    attempt = uuid.uuid4().hex[:12]
    filesystem.create_dir(f"{path}/{attempt}", recursive=True)
    try:
        files, digest, seen, dropped = _run(source, data, piece_rows, filesystem, path, attempt)
        _check_losses(seen, dropped, data.max_dropped_share, location)
        corpus = Corpus(
            folder=folder,
            rows=sum(rows for _, rows in files),
            digest=digest,
            seen=seen,
            dropped=dropped,
            identity=source.identity,
            piece_rows=piece_rows,
            files=files,
        )
        return _commit(corpus, filesystem, path, attempt)
    except BaseException:
        with suppress(OSError):
            filesystem.delete_dir(f"{path}/{attempt}")
        raise


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


def _check_losses(seen: int, dropped: dict[str, int], max_share: float, location: Location) -> None:
    lost = sum(dropped.values())
    reasons = ", ".join(f"{reason} {count}" for reason, count in dropped.items() if count)
    if not seen:
        raise RequestError(f"{describe(location)} is empty: it has no rows")
    if lost == seen:
        raise RequestError(f"{describe(location)}: none of {seen} pairs can be used: {reasons}")
    if lost > max_share * seen:
        raise RequestError(
            f"{describe(location)}: {lost} of {seen} pairs cannot be used ({reasons}), a share of "
            f"{lost / seen:.3f}; data.max_dropped_share allows {max_share}"
        )


# --- The Ray Data pipeline: read and clean, cut to files' sizes, write --------------------------


def _run(
    source: Source, data: Data, piece_rows: int, filesystem: FileSystem, path: str, attempt: str
) -> tuple[tuple[tuple[str, int], ...], str, int, dict[str, int]]:
    """Write the files; return them, the digest, the number of rows seen and those dropped."""
    import ray

    tally = ray.remote(num_cpus=0)(_Tally).remote()

    def clean_part(part: int, tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
        counts: Counter[str] = Counter()
        for table in tables:
            kept, dropped = clean(table, data.max_characters, data.max_length_ratio)
            counts.update(dropped, seen=table.num_rows)
            yield kept
        ray.get(tally.record.remote(part, counts))

    def write(block: pa.Table) -> pa.Table:
        name = f"{attempt}/part-{uuid.uuid4().hex[:12]}.parquet"
        pq.write_table(
            block.cast(CLEAN_SCHEMA),
            f"{path}/{name}",
            filesystem=filesystem,
            row_group_size=piece_rows,
            compression="zstd",
        )
        starts = range(0, block.num_rows, piece_rows)
        digests = [_sha256(block.slice(start, piece_rows)) for start in starts]
        return pa.table({"file": [name], "rows": [block.num_rows], "digests": [digests]})

    file_rows = piece_rows * max(1, FILE_ROWS // piece_rows)
    written = (
        source.dataset(clean_part)
        .repartition(target_num_rows_per_block=file_rows, strict=True)
        .map_batches(write, batch_size=None, batch_format="pyarrow", zero_copy_batch=True)
    )
    digest, files = hashlib.sha256(), []
    try:
        for row in written.iter_rows():
            files.append((row["file"], row["rows"]))
            for piece in row["digests"]:
                digest.update(bytes.fromhex(piece))
    except ray.exceptions.RayError as error:
        raise _request_error(error) or error from None
    if any(rows != file_rows for _, rows in files[:-1]):
        raise RuntimeError(f"Ray Data was asked for blocks of {file_rows} rows and made {files}")
    counts = ray.get(tally.total.remote(len(source.parts)))
    seen = counts.pop("seen", 0)
    return tuple(files), digest.hexdigest(), seen, dict(sorted(counts.items()))


class _Tally:
    """An actor that holds each part's counts. A part that is read again after a failure replaces
    its counts, so that nothing is counted twice."""

    def __init__(self) -> None:
        self._counts: dict[int, Counter[str]] = {}

    def record(self, part: int, counts: Counter[str]) -> None:
        self._counts[part] = counts

    def total(self, parts: int) -> dict[str, int]:
        if len(self._counts) != parts:
            raise RuntimeError(f"{len(self._counts)} of {parts} parts of the source were counted")
        return dict(sum(self._counts.values(), Counter()))


def _sha256(table: pa.Table) -> str:
    """Over lengths and bytes of the sources, then of the targets: no two tables run together."""
    digest = hashlib.sha256()
    for name in ("source", "target"):
        texts = table[name].combine_chunks().cast(pa.large_binary())
        offsets = np.frombuffer(texts.buffers()[1], np.int64)[texts.offset :][: len(texts) + 1]
        digest.update(np.diff(offsets).tobytes())
        digest.update(memoryview(texts.buffers()[2])[offsets[0] : offsets[-1]])
    return digest.hexdigest()


def _request_error(error: BaseException) -> RequestError | None:
    """The RequestError that a task raised, found inside what Ray made of it: Ray Data adds lines of
    its own to the message, which is one line."""
    cause: BaseException | None = error
    while cause is not None:
        if type(cause) is RequestError:
            return RequestError(str(cause).partition("\n")[0])
        cause = getattr(cause, "cause", None) or cause.__cause__
    return None
