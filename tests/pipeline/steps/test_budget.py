"""Pairs that fit into no micro-batch, and steps that no window fills, are known before training."""

from pathlib import Path

import pytest

from heliograph.pipeline.corpus.corpus import Corpus
from heliograph.pipeline.corpus.mixture import Mixture
from heliograph.pipeline.request import recipe
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.request.recipe import Batches
from heliograph.pipeline.steps.budget import check_budget, check_weights
from heliograph.pipeline.steps.tokenizer import Tokenizer, train_tokenizer
from tests.pipeline.small_corpus import write_corpus

SHORT, LONG = ("a b c", "d e f"), ("a b c " * 20, "d e f")


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    """That of six words."""
    corpus = write_corpus(tmp_path / "words", [SHORT] * 50, 10)
    path = train_tokenizer(
        Mixture((corpus,), (1.0,)), recipe.Tokenizer(vocabulary_size=300), str(tmp_path), None
    )
    return Tokenizer.load(path)


def told(corpus: Corpus, tokenizer: Tokenizer, max_share: float = 0.1, **sizes: int) -> list[str]:
    batches = Batches(piece_rows=corpus.piece_rows, **sizes)
    return list(check_budget([("'pairs.tsv'", corpus, max_share)], tokenizer, batches))


def test_nothing_where_all_is_well(tmp_path: Path, tokenizer: Tokenizer) -> None:
    corpus = write_corpus(tmp_path / "pairs", [SHORT] * 1000, 10)
    assert told(corpus, tokenizer, tokens_per_micro_batch=16, tokens_per_step=64) == []


def test_pairs_above_the_budget_are_told(tmp_path: Path, tokenizer: Tokenizer) -> None:
    corpus = write_corpus(tmp_path / "pairs", [SHORT] * 99 + [LONG], 10)
    (line,) = told(corpus, tokenizer, tokens_per_micro_batch=16, tokens_per_step=64)
    assert line.startswith("1 of all 100 pairs of 'pairs.tsv' are left out (too_many_tokens)")


def test_too_many_of_them_are_a_mistake(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """As are too many that cleaning drops (issue 15, 5)."""
    corpus = write_corpus(tmp_path / "pairs", [SHORT] + [LONG] * 24, 10)
    sizes = {"tokens_per_micro_batch": 16, "tokens_per_step": 16}
    with pytest.raises(RequestError, match=r"24 of all 25 .* 16 tokens, a share of 0\.960") as met:
        told(corpus, tokenizer, **sizes)
    enough = int(str(met.value).split("tokens_per_micro_batch ")[-1].split()[0])
    assert told(corpus, tokenizer, tokens_per_micro_batch=enough, tokens_per_step=enough) == []
    assert len(told(corpus, tokenizer, max_share=0.96, **sizes)) == 1


def test_nothing_that_fits_is_a_mistake_whatever_is_allowed(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    corpus = write_corpus(tmp_path / "pairs", [LONG] * 25, 10)
    with pytest.raises(RequestError, match="25 of all 25 pairs"):
        told(corpus, tokenizer, max_share=1.0, tokens_per_micro_batch=16, tokens_per_step=16)


def test_a_step_that_no_window_fills_is_a_mistake(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """It would silently be smaller (issue 15, 3)."""
    corpus = write_corpus(tmp_path / "pairs", [SHORT] * 1000, 10)
    sizes = {"tokens_per_micro_batch": 16, "tokens_per_step": 1000, "window_pieces": 5}
    with pytest.raises(RequestError, match=r"tokens_per_step 1000 is more than a window holds"):
        told(corpus, tokenizer, **sizes)
    assert told(corpus, tokenizer, **sizes | {"window_pieces": 100}) == []


@pytest.mark.parametrize(
    ("weight", "piece_rows", "acts_as"), [(0.1, 512, "1"), (0.1, 10, None), (1.0, 512, None)]
)
def test_a_weight_that_whole_pieces_cannot_follow_is_told(
    tmp_path: Path, weight: float, piece_rows: int, acts_as: str | None
) -> None:
    """500 pairs at 0.1 acted as 1.0, and nobody was told (issue 15, 9)."""
    corpora = [
        write_corpus(tmp_path / name, [SHORT] * rows, piece_rows)
        for name, rows in (("large", 2048), ("small", 500))
    ]
    lines = list(check_weights(Mixture(tuple(corpora), (1.0, weight))))
    if acts_as is None:
        assert lines == []
        return
    (line,) = lines
    assert line.startswith(f"data.train[1].weight {weight:g} acts as {acts_as}: ")
    nearer = write_corpus(tmp_path / "nearer", [SHORT] * 500, int(line.split()[-4]))
    assert list(check_weights(Mixture((nearer,), (weight,)))) == []


def test_a_step_larger_than_the_corpus_is_told(tmp_path: Path, tokenizer: Tokenizer) -> None:
    corpus = write_corpus(tmp_path / "pairs", [SHORT] * 20, 10)
    (line,) = told(corpus, tokenizer, tokens_per_micro_batch=16, tokens_per_step=8192)
    assert line.endswith("not batches.tokens_per_step 8192: the corpus has no more")
