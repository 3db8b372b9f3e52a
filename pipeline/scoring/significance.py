"""Whether a difference between two models is more than luck: paired bootstrap resampling."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from sacrebleu.significance import PairedTest

from heliograph.pipeline.scoring.evaluate import make_metrics


@dataclass(frozen=True)
class Comparison:
    """Two sets of translations of the same sentences, from 0 to 100, higher is better.

    Attributes:
        challenger_ci: half the width of the 95 % confidence interval around the score.
        p: one-sided: how often models that are equally good differ this much, or more.
        signature: sacrebleu's account of metric, seed and number of resamples.
    """

    challenger: float
    champion: float
    challenger_ci: float
    champion_ci: float
    p: float
    signature: str

    @property
    def gain(self) -> float:
        return self.challenger - self.champion


def compare(
    challenger: Sequence[str],
    champion: Sequence[str],
    references: Sequence[str],
    metric: str = "bleu",
    samples: int = 1000,
    tokenize: str | None = None,
) -> Comparison:
    """sacrebleu's own test, as its command line runs it with `--paired-bs`.

    All three are of the same length; `tokenize` is as in `evaluate.score`. The resamples are drawn
    with sacrebleu's seed, 12345 where the variable SACREBLEU_SEED says nothing else, so that the
    same translations get the same p-value.
    """
    test = PairedTest(
        [("champion", list(champion)), ("challenger", list(challenger))],
        {metric: make_metrics(references, tokenize)[metric]},
        [list(references)],
        test_type="bs",
        n_samples=samples,
    )
    signatures, scores = test()
    [(name, signature)] = signatures.items()
    before, after = cast(list[Any], scores[name])
    return Comparison(
        challenger=float(after.score),
        champion=float(before.score),
        challenger_ci=float(after.ci),
        champion_ci=float(before.ci),
        p=float(after.p_value),
        signature=str(signature),
    )


def confidence(
    hypotheses: Sequence[str],
    references: Sequence[str],
    metric: str = "bleu",
    samples: int = 1000,
    tokenize: str | None = None,
) -> tuple[float, float]:
    """A score, and half the width of the 95 % confidence interval around it."""
    score = make_metrics(references, tokenize)[metric].corpus_score(
        list(hypotheses), [list(references)], n_bootstrap=samples
    )
    return float(score.score), float(score._ci)
