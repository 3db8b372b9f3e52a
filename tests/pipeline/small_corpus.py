"""A corpus on storage without Ray: what `prepare_corpus` leaves, written directly."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from heliograph.pipeline.corpus.corpus import Corpus
from heliograph.pipeline.corpus.mixture import Mixture


def write_mixture(folder: Path, pairs: Sequence[tuple[str, str]], piece_rows: int) -> Mixture:
    """A mixture of a single corpus."""
    return Mixture((write_corpus(folder, pairs, piece_rows),), (1.0,))


def write_corpus(folder: Path, pairs: Sequence[tuple[str, str]], piece_rows: int) -> Corpus:
    folder.mkdir(parents=True)
    columns = {side: [pair[i] for pair in pairs] for i, side in enumerate(("source", "target"))}
    table = pa.table(columns, schema=pa.schema([(side, pa.string()) for side in columns]))
    pq.write_table(table, folder / "part-00000.parquet", row_group_size=piece_rows)
    return Corpus(
        folder=str(folder),
        rows=len(pairs),
        digest=hashlib.sha256(json.dumps(list(pairs)).encode()).hexdigest(),
        seen=len(pairs),
        dropped={},
        changed={},
        identity={},
        piece_rows=piece_rows,
        files=(("part-00000.parquet", len(pairs)),),
    )


def unread_corpus(digest: str, location: str | list[str], **identity: Any) -> Corpus:
    """One of which only the identity matters."""
    return Corpus(
        folder="",
        rows=90,
        digest=digest,
        seen=100,
        dropped={"empty": 10},
        changed={},
        identity={"location": location, **identity},
        piece_rows=10,
        files=(),
    )
