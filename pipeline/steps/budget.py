"""Whether the pairs fit into micro-batches, and a step into a window: looked at before training."""

from collections.abc import Iterator, Sequence

import numpy as np

from heliograph.pipeline.corpus.corpus import Corpus
from heliograph.pipeline.corpus.mixture import Mixture
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.request.recipe import Batches
from heliograph.pipeline.steps.tokenizer import Tokenizer
from heliograph.pipeline.steps.tokens import SIDES, Ragged
from heliograph.pipeline.steps.windows import Numbers

LOOKED_AT = 10_000
"""Pairs of each corpus, from all over it: of a smaller one they are all."""
MUCH = 0.2
"""How far a weight may be from what it acts as before that is told."""
NEARLY = 0.8
"""Of the tokens that a step is to have: what windows make of it is told where it is less."""


def check_budget(
    ingredients: Sequence[tuple[str, Corpus, float]], tokenizer: Tokenizer, batches: Batches
) -> Iterator[str]:
    """What to tell the user of steps and pairs that will not be as the recipe has them.

    Args:
        ingredients: of each corpus, what the user calls it, and the share of its pairs that may be
            left out.

    Raises:
        RequestError: training would leave out more than that of a corpus, or its windows hold less
            than a step (issue 15, points 3 and 5).
    """
    mean = []
    for name, corpus, max_share in ingredients:
        lengths = _lengths(corpus, tokenizer)
        fits = lengths[lengths <= batches.tokens_per_micro_batch]
        if len(fits) < len(lengths):
            yield _left_out(name, corpus, lengths, max_share, batches.tokens_per_micro_batch)
        mean.append(float(fits.mean()))
    rows = sum(corpus.rows for _, corpus, _ in ingredients)
    window = min(rows, batches.piece_rows * batches.window_pieces)
    if (told := _steps(rows, window, max(mean), batches)) is not None:
        yield told


def check_weights(mixture: Mixture) -> Iterator[str]:
    """What to tell of corpora that an epoch cannot use as often as the recipe has it, because it
    takes whole pieces of them (issue 15, point 9)."""
    for number, (corpus, weight, pieces) in enumerate(
        zip(mixture.corpora, mixture.weights, mixture.shares, strict=True)
    ):
        acts_as = pieces / corpus.piece_count
        if abs(acts_as / weight - 1) > MUCH:
            yield (
                f"data.train[{number}].weight {weight:g} acts as {acts_as:.3g}: an epoch takes "
                f"whole pieces, and that corpus of {corpus.rows} pairs has {corpus.piece_count} of "
                f"batches.piece_rows {corpus.piece_rows}; with piece_rows "
                f"{max(1, int(corpus.rows * min(weight, 1.0) * MUCH))} it comes near"
            )


def _lengths(corpus: Corpus, tokenizer: Tokenizer) -> Numbers:
    """Of pairs from all over the corpus: the tokens of the longer side, its end included."""
    count = min(corpus.piece_count, max(1, LOOKED_AT // corpus.piece_rows))
    table = corpus.read(np.linspace(0, corpus.piece_count - 1, count).astype(int).tolist())
    table = table.slice(0, LOOKED_AT)
    source, target = (Ragged.encode(tokenizer, table[side]).lengths for side in SIDES)
    return np.maximum(source, target) + 1


def _left_out(name: str, corpus: Corpus, lengths: Numbers, max_share: float, budget: int) -> str:
    """Raises RequestError when there are too many of them."""
    count = int((lengths > budget).sum())
    share = count / len(lengths)
    seen = f"all {len(lengths)}" if len(lengths) == corpus.rows else f"{len(lengths)} looked at"
    told = (
        f"{count} of {seen} pairs of {name} are left out "
        f"(too_many_tokens): a side has more than batches.tokens_per_micro_batch {budget} tokens"
    )
    if count == len(lengths) or share > max_share:
        enough = int(np.quantile(lengths, 1 - max_share, method="higher"))
        raise RequestError(
            f"{told}, a share of {share:.3f}; data.max_dropped_share allows {max_share}, and "
            f"batches.tokens_per_micro_batch {enough} would leave out no more than that"
        )
    return told


def _steps(rows: int, window: int, mean: float, batches: Batches) -> str | None:
    """Raises RequestError when a window cannot fill a step, though the corpus could."""
    held, wanted = int(window * mean), batches.tokens_per_step
    size = held / -(-held // wanted)
    if size > NEARLY * wanted:
        return None
    if held < wanted and window < rows:
        pieces = -(-wanted // int(batches.piece_rows * mean))
        raise RequestError(
            f"batches.tokens_per_step {wanted} is more than a window holds, about {held} tokens: "
            f"a step never goes beyond one. Valid: batches.window_pieces {4 * pieces} (from "
            f"{pieces} on), or tokens_per_step at most {held}"
        )
    return f"steps will have about {size:.0f} tokens, not batches.tokens_per_step {wanted}: " + (
        "the corpus has no more" if window == rows else "a window is cut into equal ones"
    )
