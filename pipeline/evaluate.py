"""Evaluation: sacrebleu's BLEU and chrF, with the signatures that make a score reproducible, and
the pinned set of pairs that a model was scored on."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from pipeline.errors import RequestError
from pipeline.recipe import Evaluate

if TYPE_CHECKING:  # torch, which scoring itself does without
    from pipeline.translate import RunsModel

EVALUATION_SET = "evaluation.parquet"

Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Scores:
    """Scores of a whole set, from 0 to 100, higher is better.

    Attributes:
        bleu: corpus BLEU, cased, 13a tokenization (Post, 2018).
        chrf: chrF2, characters up to 6-grams (Popović, 2015).
        signatures: by metric, sacrebleu's account of how the score was computed.
        hypotheses: what was scored, in the order of the set.
    """

    bleu: float
    chrf: float
    signatures: dict[str, str]
    sentences: int
    hypotheses: list[str]


def evaluate(engine: "RunsModel", pairs: Pairs, settings: Evaluate) -> Scores:
    """Translate the sources and score the result against the targets.

    Raises:
        RequestError: there are no pairs.
    """
    hypotheses = engine.translate([source for source, _ in pairs], settings)
    return score(hypotheses, [target for _, target in pairs])


def score(hypotheses: Sequence[str], references: Sequence[str]) -> Scores:
    """Score one hypothesis per reference.

    Raises:
        RequestError: there are none.
    """
    assert len(hypotheses) == len(references), "one hypothesis per reference"
    if not hypotheses:
        raise RequestError("the evaluation set is empty: a score needs at least one sentence pair")
    metrics = make_metrics()
    found = {
        name: metric.corpus_score(list(hypotheses), [list(references)]).score
        for name, metric in metrics.items()
    }
    return Scores(
        bleu=found["bleu"],
        chrf=found["chrf"],
        signatures={name: str(metric.get_signature()) for name, metric in metrics.items()},
        sentences=len(hypotheses),
        hypotheses=list(hypotheses),
    )


def sentence_scores(hypotheses: Sequence[str], references: Sequence[str]) -> list[float]:
    """chrF of each sentence; BLEU means little on a single one."""
    metric = make_metrics()["chrf"]
    pairs = zip(hypotheses, references, strict=True)
    return [
        float(metric.sentence_score(hypothesis, [reference]).score)
        for hypothesis, reference in pairs
    ]


def make_metrics() -> dict[str, Any]:
    """sacrebleu's metrics, by the names they have here."""
    # force: no warning where many lines end in a spaced full stop; it does not change the score.
    return {"bleu": BLEU(tokenize="13a", force=True), "chrf": CHRF()}


def write_evaluation_set(folder: str | Path, pairs: Pairs) -> str:
    """Pin the pairs that scores are measured on inside a model folder; their digest."""
    table = pa.table(
        {
            "source": pa.array([source for source, _ in pairs], pa.string()),
            "target": pa.array([target for _, target in pairs], pa.string()),
        }
    )
    path = Path(folder) / EVALUATION_SET
    temporary = path.with_name(f".{path.name}.writing")
    pq.write_table(table, temporary)
    temporary.replace(path)
    return evaluation_digest(pairs)


def read_evaluation_set(folder: str | Path) -> list[tuple[str, str]]:
    """The pairs pinned inside a model folder.

    Raises:
        RequestError: the folder has none.
    """
    path = Path(folder) / EVALUATION_SET
    if not path.is_file():
        raise RequestError(
            f"{str(folder)!r} has no pinned evaluation set ({EVALUATION_SET}); models that "
            "`heliograph train` registered have one"
        )
    table = pq.read_table(path, columns=["source", "target"])
    return list(zip(*(table[column].to_pylist() for column in ("source", "target")), strict=True))


def evaluation_digest(pairs: Pairs) -> str:
    """SHA-256 over the text of the pairs in order, whatever file they are kept in."""
    digest = hashlib.sha256()
    for source, target in pairs:
        digest.update(json.dumps([source, target]).encode() + b"\n")
    return digest.hexdigest()
