"""Evaluation: sacrebleu's BLEU and chrF, with the signatures that make a score reproducible, and
the pinned set of pairs that a model was scored on."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from heliograph.pipeline.request.decoding import Evaluate
from heliograph.pipeline.request.errors import RequestError, one_line

if TYPE_CHECKING:  # torch, which scoring itself does without
    from heliograph.pipeline.translation.translate import RunsModel

EVALUATION_SET = "evaluation.parquet"

SENTENCES_LOOKED_AT = 1000
"""For their script."""
_UNSPACED = (
    ("\u3040", "\u30ff", "kana"),
    ("\u31f0", "\u31ff", "kana"),
    ("\uff66", "\uff9f", "kana"),
    ("\u3400", "\u9fff", "han"),
    ("\uf900", "\ufaff", "han"),
    ("\U00020000", "\U0003ffff", "han"),
    ("\u0e00", "\u0eff", "other"),  # Thai, Lao
    ("\u0f00", "\u0fff", "other"),  # Tibetan
    ("\u1000", "\u109f", "other"),  # Burmese
    ("\u1780", "\u17ff", "other"),  # Khmer
)
"""Scripts that are written without spaces between words."""

Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Scores:
    """Scores of a whole set, from 0 to 100, higher is better.

    Attributes:
        bleu: corpus BLEU, cased (Post, 2018).
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
    return score(hypotheses, [target for _, target in pairs], settings.tokenize)


def score(
    hypotheses: Sequence[str], references: Sequence[str], tokenize: str | None = None
) -> Scores:
    """Score one hypothesis per reference.

    Args:
        tokenize: what BLEU's words are; None: as `word_cutter` chooses.

    Raises:
        RequestError: there are none.
    """
    assert len(hypotheses) == len(references), "one hypothesis per reference"
    if not hypotheses:
        raise RequestError("the evaluation set is empty: a score needs at least one sentence pair")
    metrics = make_metrics(references, tokenize)
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
    metric = make_metrics(references)["chrf"]
    pairs = zip(hypotheses, references, strict=True)
    return [
        float(metric.sentence_score(hypothesis, [reference]).score)
        for hypothesis, reference in pairs
    ]


def make_metrics(references: Sequence[str], tokenize: str | None = None) -> dict[str, Any]:
    """sacrebleu's metrics for such references, by the names they have here."""
    # force: no warning where many lines end in a spaced full stop; it does not change the score.
    bleu = BLEU(tokenize=tokenize or word_cutter(references), force=True)
    return {"bleu": bleu, "chrf": CHRF()}


def check_tokenizer(settings: Evaluate) -> None:
    """Before anything is trained: what BLEU is to count is there.

    Raises:
        RequestError: sacrebleu's tokenizer needs a package, or a download, that is not there.
    """
    try:
        BLEU(tokenize=settings.tokenize or "13a")
    except (ImportError, RuntimeError, OSError) as error:
        raise RequestError(
            f"evaluate.tokenize {settings.tokenize!r} cannot be used here: {one_line(error)}"
        ) from error


def word_cutter(references: Sequence[str]) -> str:
    """sacrebleu's tokenizer for text like this.

    13a cuts at spaces and punctuation: of a script without spaces a whole sentence would be one
    word, and BLEU almost always 0 (issue 15, 12). There it is `zh` for Chinese, for Japanese
    `ja-mecab` where that is installed, and `char` for all others.
    """
    scripts = Counter(
        _script(character)
        for reference in islice(references, SENTENCES_LOOKED_AT)
        for character in reference
        if character.isalpha()
    )
    unspaced = scripts["han"] + scripts["kana"] + scripts["other"]
    if 2 * unspaced <= scripts.total():
        return "13a"
    if 2 * scripts["other"] > unspaced:
        return "char"
    if 20 * scripts["kana"] < unspaced:
        return "zh"
    return "ja-mecab" if find_spec("MeCab") and find_spec("ipadic") else "char"


def check_references(pairs: Pairs, settings: Evaluate) -> Iterator[str]:
    """What to tell of a validation set, or of a part of it, before a model is chosen by it."""
    references = [target for _, target in pairs]
    if (told := looks_tokenized(references)) is not None:
        yield told
    if settings.tokenize is None and (chosen := word_cutter(references)) != "13a":
        yield (
            f"BLEU takes its words from sacrebleu's {chosen!r}, by the script of the validation "
            "set's targets; evaluate.tokenize names another"
        )


def looks_tokenized(references: Sequence[str]) -> str | None:
    """What to tell about references whose punctuation stands apart, as a tokenizer leaves it."""
    spaced = sum(reference.rstrip().endswith((" .", " !", " ?")) for reference in references)
    if 2 * spaced <= len(references):
        return None
    return (
        f"the references look tokenized ({spaced} of {len(references)} end in ' .'): scores on "
        "them cannot be compared with others'; detokenize them first"
    )


def _script(character: str) -> str:
    for first, last, name in _UNSPACED:
        if first <= character <= last:
            return name
    return "spaced"


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
