"""Sentence pairs of any number: words by Zipf's law, about 100 bytes a pair, the same each time."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

FILE_PAIRS = 500_000
WORDS = 50_000
_LETTERS = np.array(list("eeeeaaaiioonnrrttssldhcumpgbfwykvzxjq"))


def write_pairs(folder: Path, pairs: int) -> None:
    """Parquet files of {source, target}: 4 to 14 words, the target a little longer or shorter."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    words = [_word(random) for _ in range(WORDS)]
    for number, first in enumerate(range(0, pairs, FILE_PAIRS)):
        rows = min(FILE_PAIRS, pairs - first)
        lengths = random.integers(4, 15, rows)
        others = np.maximum(lengths + random.integers(-2, 3, rows), 1)
        table = pa.table(
            {
                "source": _sentences(words, lengths, random),
                "target": _sentences(words, others, random),
            }
        )
        pq.write_table(table, folder / f"{number:05}.parquet", row_group_size=100_000)


def _word(random: np.random.Generator) -> str:
    return "".join(random.choice(_LETTERS, random.integers(2, 9)))


def _sentences(
    words: list[str], lengths: NDArray[np.int64], random: np.random.Generator
) -> list[str]:
    # Word number n with a probability proportional to 1/n.
    numbers = np.exp(random.random(lengths.sum()) * np.log(WORDS)).astype(np.int64) - 1
    chosen = [words[number] for number in numbers.tolist()]
    ends = np.cumsum(lengths).tolist()
    return [
        " ".join(chosen[end - length : end])
        for end, length in zip(ends, lengths.tolist(), strict=True)
    ]
