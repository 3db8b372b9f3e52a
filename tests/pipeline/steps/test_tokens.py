"""Prepared tokens are the same tokens, found only where they belong, and written once."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliograph.pipeline.corpus.corpus import Corpus
from heliograph.pipeline.corpus.mixture import Mixture
from heliograph.pipeline.request import recipe
from heliograph.pipeline.sources.embedded.grammar import pairs
from heliograph.pipeline.steps.portions import WindowPlan, portions
from heliograph.pipeline.steps.tokenizer import Tokenizer
from heliograph.pipeline.steps.tokens import Ragged, find_tokens, prepare_tokens, tokens_of
from tests.pipeline.small_corpus import write_corpus

PAIRS = [("", "leer"), *pairs("train")[:399]]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write_corpus(tmp_path_factory.mktemp("tokens") / "corpus", PAIRS, piece_rows=30)


@given(st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=4), max_size=9))
def test_ragged_sequences_go_through_arrow(sequences: list[list[int]]) -> None:
    flat = np.array([token for sequence in sequences for token in sequence], np.int32)
    ragged = Ragged(flat, np.array([len(sequence) for sequence in sequences], np.int64))
    lists = ragged.to_lists()
    assert lists.to_pylist() == sequences
    cut = pa.chunked_array([lists.slice(0, 2), lists.slice(2)], lists.type)
    again = Ragged.from_lists(cut)
    assert again.tokens.tolist() == flat.tolist()
    assert again.lengths.tolist() == ragged.lengths.tolist()


@pytest.mark.usefixtures("ray_cluster")
def test_prepared_tokens_are_those_of_the_texts(
    corpus: Corpus, tiny_tokenizer: Tokenizer, storage: str
) -> None:
    assert find_tokens(corpus, tiny_tokenizer, storage) is None
    tokens = prepare_tokens(corpus, tiny_tokenizer, storage)
    assert find_tokens(corpus, tiny_tokenizer, storage) == tokens
    for pieces in ([5, 0, 13], range(14)):
        text_table, table = corpus.read(pieces), tokens.read(pieces)
        assert table["pair"].to_pylist() == text_table["pair"].to_pylist()
        found = tokens_of(table, [tiny_tokenizer] * 2)
        for side, expected in zip(found, tokens_of(text_table, [tiny_tokenizer] * 2), strict=True):
            assert side.tokens.tolist() == expected.tokens.tolist()
            assert side.lengths.tolist() == expected.lengths.tolist()
        assert table["source_length"].to_pylist() == found[0].lengths.tolist()
    totals = [sum(map(len, tiny_tokenizer.encode_batch([p[i] for p in PAIRS]))) for i in (0, 1)]
    assert [tokens.identity[f"{side}_tokens"] for side in ("source", "target")] == totals


@pytest.mark.usefixtures("ray_cluster")
def test_the_step_list_is_the_same_with_prepared_tokens(
    corpus: Corpus, tiny_tokenizer: Tokenizer, storage: str
) -> None:
    batches = recipe.Batches(
        tokens_per_micro_batch=150, tokens_per_step=600, piece_rows=30, window_pieces=6
    )
    tokens = prepare_tokens(corpus, tiny_tokenizer, storage)
    for window in range(3):
        of_texts, of_tokens = (
            list(
                portions(
                    WindowPlan(Mixture((each,), (1.0,)), "", batches, recipe.Augment(), 0, 2),
                    tiny_tokenizer, 1, window, 0, last=False,
                )
            )
            for each in (corpus, tokens)
        )  # fmt: skip
        assert of_texts == of_tokens


@pytest.mark.usefixtures("ray_cluster")
def test_tokens_of_another_corpus_or_tokenizer_are_not_found(
    corpus: Corpus, tiny_tokenizer: Tokenizer, storage: str, tmp_path: Path
) -> None:
    prepare_tokens(corpus, tiny_tokenizer, storage)
    other_corpus = write_corpus(tmp_path / "other", PAIRS[:-1], piece_rows=30)
    assert find_tokens(other_corpus, tiny_tokenizer, storage) is None
    other_tokenizer = Tokenizer.from_json(
        tiny_tokenizer.to_json().replace('"dropout":null', '"dropout":0.1')
    )
    assert other_tokenizer.digest != tiny_tokenizer.digest
    assert find_tokens(corpus, other_tokenizer, storage) is None


@pytest.mark.usefixtures("ray_cluster")
def test_an_interrupted_preparation_is_gone_on_with(
    corpus: Corpus, tiny_tokenizer: Tokenizer, storage: str
) -> None:
    tokens = prepare_tokens(corpus, tiny_tokenizer, storage)
    folder = Path(tokens.folder)
    file = folder / tokens.files[0][0]
    written = file.stat().st_mtime_ns
    (folder / "manifest.json").unlink()  # as if killed before it was written
    assert find_tokens(corpus, tiny_tokenizer, storage) is None
    assert prepare_tokens(corpus, tiny_tokenizer, storage) == tokens
    assert file.stat().st_mtime_ns == written
    assert (
        pq.read_schema(file).metadata[b"source"] == str(tokens.identity["source_tokens"]).encode()
    )
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "part-00000.parquet"]
