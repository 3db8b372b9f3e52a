"""Several corpora as one: numbers, weights and digests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliograph.pipeline.corpus.corpus import Corpus
from heliograph.pipeline.corpus.mixture import Mixture
from tests.pipeline.small_corpus import write_corpus


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, ...]:
    """Of 3, 1 and 2 pieces of four pairs, the last piece of each shorter."""
    folder = tmp_path_factory.mktemp("mixture")
    return tuple(
        write_corpus(
            folder / name, [(f"{name} {n}", f"{name.upper()} {n}") for n in range(rows)], 4
        )
        for name, rows in (("a", 11), ("b", 2), ("c", 7))
    )


@given(pieces=st.lists(st.integers(0, 5), max_size=20))
def test_a_pair_has_one_number_wherever_its_piece_is_read(
    corpora: tuple[Corpus, ...], pieces: list[int]
) -> None:
    mixture = Mixture(corpora, (1.0, 1.0, 1.0))
    names = [f"{name} {n}" for name, rows in (("a", 11), ("b", 2), ("c", 7)) for n in range(rows)]
    rows = [range(4), range(4, 8), range(8, 11), range(11, 13), range(13, 17), range(17, 20)]
    table = mixture.read(pieces)
    pairs = table["pair"].to_pylist()
    assert sorted(pairs) == sorted(pair for piece in pieces for pair in rows[piece])
    assert table["source"].to_pylist() == [names[pair] for pair in pairs]
    assert table["target"].to_pylist() == [names[pair].upper() for pair in pairs]


def test_weights_are_shares_of_pieces_and_never_nothing(corpora: tuple[Corpus, ...]) -> None:
    mixture = Mixture(corpora, (2.0, 0.1, 0.5))
    assert mixture.piece_counts == (3, 1, 2)
    assert mixture.piece_count == 6
    assert mixture.shares == (6, 1, 1)


def test_the_digest_tells_mixtures_apart(corpora: tuple[Corpus, ...]) -> None:
    mixtures = [
        Mixture(corpora[:1], (1.0,)),
        Mixture(corpora, (1.0, 1.0, 1.0)),
        Mixture(corpora, (1.0, 2.0, 1.0)),
        Mixture(corpora[::-1], (1.0, 1.0, 1.0)),
    ]
    assert len({mixture.digest for mixture in mixtures}) == 4
    assert mixtures[0].digest == corpora[0].digest
