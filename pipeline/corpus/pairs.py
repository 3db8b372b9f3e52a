"""The usable pairs of a data set that is small enough for this process: an evaluation set.

Cleaned as `corpus` cleans them, but for duplicates, which an evaluation set may have; without Ray
and without storage: on a cluster, only the driver need reach the data.
"""

from collections import Counter

from heliograph.pipeline.corpus.cleaning import (
    NORMALIZED,
    SEEN,
    Limit,
    check_losses,
    count,
    judge_part,
    kept,
)
from heliograph.pipeline.request.data import Data
from heliograph.pipeline.sources.source import Source


def read_pairs(source: Source, data: Data) -> list[tuple[str, str]]:
    """Its (source, target) pairs, in order.

    Raises:
        RequestError: it cannot be read, or more than `data.max_dropped_share` cannot be used.
    """
    counts: Counter[str] = Counter()
    pairs: list[tuple[str, str]] = []
    everything = Limit(data.max_rows)
    for number, part in enumerate(source.parts):
        limit = everything.share(number, len(source.parts))
        for judged in judge_part(source.tables(number), data, limit, part.entry[0]):
            counts += count(judged)
            used = kept(judged)
            pairs += zip(used["source"].to_pylist(), used["target"].to_pylist(), strict=True)
    seen = counts.pop(SEEN, 0)
    counts.pop(NORMALIZED, None)
    check_losses(seen, dict(sorted(counts.items())), data.max_dropped_share, source.name)
    return pairs
