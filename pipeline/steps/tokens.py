"""Token ids of a corpus: encoded when a window is made, or read where they were prepared.

    storage/tokens/KEY/manifest.json       written last: without it there are none
    storage/tokens/KEY/part-*.parquet      a file and row group for each of the corpus'

Prepared tokens are a corpus whose files hold ids instead of text, piece by piece the same pairs, so
that the step list is the same either way. KEY is a hash of the corpus' and the tokenizer's digests:
tokens of anything else are never found. Files are whole or absent and the same whoever writes them:
a preparation that was killed is gone on with by the next, and two at once do not disturb each
other.
"""

import hashlib
import json
import os
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow.fs import FileSystem, FileType

from heliograph.pipeline.corpus.corpus import Corpus
from heliograph.pipeline.sources.source import ordered_context
from heliograph.pipeline.steps.tokenizer import Tokenizer, shared_tokenizer
from heliograph.pipeline.steps.windows import Numbers
from heliograph.pipeline.storage.filesystems import filesystem_of

TOKENS_VERSION = 1
"""To be raised whenever the same corpus and tokenizer would give other files: part of KEY."""
SIDES = ("source", "target")
SCHEMA = pa.schema(
    [
        # Without special tokens.
        *((f"{side}_tokens", pa.list_(pa.int32())) for side in SIDES),
        *((f"{side}_length", pa.int32()) for side in SIDES),
    ]
)

_TEXTS_PER_CALL = 2048


class Encoder(Protocol):
    """A `Tokenizer`, or one that samples."""

    def encode_batch(self, texts: Sequence[str], /) -> list[list[int]]: ...


@dataclass(frozen=True)
class Ragged:
    """Sequences of token ids one behind the other."""

    tokens: NDArray[np.int32]
    lengths: Numbers

    @classmethod
    def encode(cls, encoder: Encoder, texts: Sequence[str] | pa.ChunkedArray) -> "Ragged":
        """The texts' tokens, a few thousand texts at a time: encodings are large objects."""
        parts, lengths = [], []
        for start in range(0, len(texts), _TEXTS_PER_CALL):
            some = texts[start : start + _TEXTS_PER_CALL]
            ids = encoder.encode_batch(
                some.to_pylist() if isinstance(some, pa.ChunkedArray) else some
            )
            lengths.append(np.fromiter(map(len, ids), np.int64, len(ids)))
            total = int(lengths[-1].sum())
            parts.append(np.fromiter(chain.from_iterable(ids), np.int32, total))
        return cls(
            np.concatenate(parts or [np.empty(0, np.int32)]),
            np.concatenate(lengths or [np.empty(0, np.int64)]),
        )

    @classmethod
    def from_lists(cls, lists: pa.ChunkedArray) -> "Ragged":
        """From Arrow's list<int32>."""
        chunks = [chunk.flatten().to_numpy() for chunk in lists.chunks]
        lengths = [chunk.value_lengths().to_numpy().astype(np.int64) for chunk in lists.chunks]
        return cls(
            np.concatenate([*chunks, np.empty(0, np.int32)]),
            np.concatenate([*lengths, np.empty(0, np.int64)]),
        )

    def to_lists(self) -> pa.ListArray:
        """As Arrow's list<int32>."""
        offsets = np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(self.tokens))

    def take(self, rows: Numbers) -> "Ragged":
        """These sequences, in this order."""
        lengths = self.lengths[rows]
        starts = (np.cumsum(self.lengths) - self.lengths)[rows]
        shifts = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
        return Ragged(self.tokens[shifts + np.arange(lengths.sum())], lengths)


def tokens_of(table: pa.Table, encoders: Sequence[Encoder]) -> tuple[Ragged, Ragged]:
    """Both sides of what `Corpus.read` gave: of prepared tokens as they are, of text encoded.

    Args:
        encoders: the source's and the target's.
    """
    source, target = (
        Ragged.from_lists(table[f"{side}_tokens"])
        if f"{side}_tokens" in table.column_names
        else Ragged.encode(encoder, table[side])
        for side, encoder in zip(SIDES, encoders, strict=True)
    )
    return source, target


def find_tokens(corpus: Corpus, tokenizer: Tokenizer, storage: str) -> Corpus | None:
    """The corpus as tokens, if they were prepared."""
    try:
        return Corpus.load(_folder(corpus, tokenizer, storage))
    except FileNotFoundError:
        return None


def prepare_tokens(corpus: Corpus, tokenizer: Tokenizer, storage: str) -> Corpus:
    """The corpus as tokens: found on storage, or encoded and written there now, a Ray task for
    each of its files. `identity` holds the digests of what they were made from, and theirs."""
    import ray.data

    if found := find_tokens(corpus, tokenizer, storage):
        return found
    folder = _folder(corpus, tokenizer, storage)
    filesystem, path = filesystem_of(folder)
    filesystem.create_dir(path, recursive=True)
    text = tokenizer.to_json()

    def encode(part: pa.Table) -> pa.Table:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one core per task; the process is Ray's
        number = part["id"][0].as_py()
        facts = _write_file(corpus, number, shared_tokenizer(text), filesystem, path)
        return pa.Table.from_pylist([facts])

    with ray.data.DataContext.current(ordered_context()):
        parts = ray.data.range(len(corpus.files), override_num_blocks=len(corpus.files))
    written = parts.map_batches(encode, batch_size=1, batch_format="pyarrow")
    facts = list(written.iter_rows())
    identity: dict[str, Any] = {
        "corpus": corpus.digest,
        "tokenizer": tokenizer.digest,
        "sha256": hashlib.sha256("".join(fact["sha256"] for fact in facts).encode()).hexdigest(),
    }
    identity |= {f"{side}_tokens": sum(int(fact[side]) for fact in facts) for side in SIDES}
    files = tuple((_name(number), rows) for number, (_, rows) in enumerate(corpus.files))
    tokens = replace(corpus, folder=folder, files=files, identity=identity)
    content = {key: value for key, value in asdict(tokens).items() if key != "folder"}
    _write_whole(filesystem, f"{path}/manifest.json", json.dumps(content).encode())
    return tokens


def _folder(corpus: Corpus, tokenizer: Tokenizer, storage: str) -> str:
    parts = [corpus.digest, corpus.piece_rows, tokenizer.digest, TOKENS_VERSION]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]
    return f"{storage.rstrip('/')}/tokens/{key}"


def _name(number: int) -> str:
    return f"part-{number:05}.parquet"


def _write_file(
    corpus: Corpus, number: int, tokenizer: Tokenizer, filesystem: FileSystem, path: str
) -> dict[str, str]:
    """Encode a file of the corpus, unless that is done; returns the sha256 and the number of its
    tokens, which the file holds as well."""
    final = f"{path}/{_name(number)}"
    if filesystem.get_file_info(final).type == FileType.File:
        metadata = pq.read_schema(final, filesystem=filesystem).metadata
        return {key: metadata[key.encode()].decode() for key in ("sha256", *SIDES)}
    pieces = [-(-rows // corpus.piece_rows) for _, rows in corpus.files]
    first = sum(pieces[:number])
    texts = corpus.read(range(first, first + pieces[number]))
    sides = tokens_of(texts, [tokenizer, tokenizer])
    digest = hashlib.sha256()
    for side in sides:
        digest.update(side.lengths.tobytes())
        digest.update(side.tokens.tobytes())
    facts = {"sha256": digest.hexdigest()}
    facts |= {name: str(len(side.tokens)) for name, side in zip(SIDES, sides, strict=True)}
    lengths = [pa.array(side.lengths, pa.int32()) for side in sides]
    table = pa.table([*(side.to_lists() for side in sides), *lengths], schema=SCHEMA)
    buffer = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata(facts),
        buffer,
        row_group_size=corpus.piece_rows,
        compression="zstd",
    )
    _write_whole(filesystem, final, buffer.getvalue())
    return facts


def _write_whole(filesystem: FileSystem, path: str, data: bytes | pa.Buffer) -> None:
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    with filesystem.open_output_stream(temporary) as stream:
        stream.write(data)
    filesystem.move(temporary, path)
