"""Several corpora as one: their pieces and pairs numbered through, each used by its weight."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import pyarrow as pa
import pyarrow.compute as pc

from heliograph.pipeline.corpus.corpus import Corpus


@dataclass(frozen=True)
class Mixture:
    """What training draws from. Small, so that it can be sent to any worker."""

    corpora: tuple[Corpus, ...]
    weights: tuple[float, ...]
    """How often an epoch uses each of a corpus' pairs, on average over epochs."""

    @classmethod
    def load(cls, folders: Sequence[tuple[str, float]]) -> "Mixture":
        """Prepared corpora with their weights; raises FileNotFoundError."""
        corpora = tuple(Corpus.load(folder) for folder, _ in folders)
        return cls(corpora, tuple(weight for _, weight in folders))

    @cached_property
    def piece_counts(self) -> tuple[int, ...]:
        """Pieces of each corpus."""
        return tuple(corpus.piece_count for corpus in self.corpora)

    @property
    def piece_count(self) -> int:
        """Pieces of all corpora, each counted once."""
        return sum(self.piece_counts)

    @cached_property
    def shares(self) -> tuple[int, ...]:
        """Pieces of each corpus that an epoch uses: one at least."""
        return tuple(
            max(1, round(weight * count))
            for weight, count in zip(self.weights, self.piece_counts, strict=True)
        )

    @property
    def digest(self) -> str:
        """A single corpus' own; of several, the sha256 of theirs and their weights."""
        if len(self.corpora) == 1:
            return self.corpora[0].digest
        parts = [[corpus.digest for corpus in self.corpora], list(self.weights)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def read(self, piece_numbers: Sequence[int]) -> pa.Table:
        """As `Corpus.read`, but the pieces of the first corpus come first, and so on."""
        pieces = accumulate(self.piece_counts, initial=0)
        pairs = accumulate((corpus.rows for corpus in self.corpora), initial=0)
        tables = []
        for corpus, (first, end), first_pair in zip(
            self.corpora, pairwise(pieces), pairs, strict=False
        ):
            own = [number - first for number in piece_numbers if first <= number < end]
            if not own:
                continue
            table = corpus.read(own)
            numbers = pc.add(table["pair"], pa.scalar(first_pair, pa.int64()))
            tables.append(table.set_column(0, "pair", numbers))
        return pa.concat_tables(tables) if tables else self.corpora[0].read([])
