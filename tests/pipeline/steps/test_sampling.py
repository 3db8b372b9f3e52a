"""The laws of the papers, exactly; nothing but the numbers and the texts decides; text comes back.

Bounds on frequencies are 6 standard deviations: a right sampler fails one in 10^9 of them. As the
draws follow from fixed numbers, a test that passes once passes always.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

from heliograph.pipeline.request import recipe
from heliograph.pipeline.sources.embedded.grammar import pairs
from heliograph.pipeline.steps import sampling
from heliograph.pipeline.steps.sampling import SubwordSampler
from heliograph.pipeline.steps.tokenizer import END, SPECIAL_TOKENS, Tokenizer, train_tokenizer
from tests.pipeline.small_corpus import write_corpus
from tests.pipeline.steps.test_tokenizer import texts

ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
DRAWS = 20_000
NEVER = {"bpe": recipe.Augment(bpe_dropout=1e-300), "unigram": recipe.Augment(unigram_alpha=1e9)}
"""As good as no sampling, through the whole of it."""
USUAL = {"bpe": recipe.Augment(bpe_dropout=0.1), "unigram": recipe.Augment(unigram_alpha=0.2)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    folder = tmp_path_factory.mktemp("sampling")
    corpus = write_corpus(folder / "corpus", pairs("train")[:2_000], piece_rows=500)
    return {
        kind: Tokenizer.load(
            train_tokenizer(
                corpus, recipe.Tokenizer(kind=kind, vocabulary_size=600), str(folder), "NFC"
            )
        )
        for kind in NEVER
    }


def byte_level(model: models.Model) -> Tokenizer:
    backend = Backend(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return Tokenizer(backend)


def bpe(*merges: str, dropout: float | None = None) -> Tokenizer:
    """With these merges, each as "left right"."""
    split = [tuple(merge.split()) for merge in merges]
    tokens = dict.fromkeys([*SPECIAL_TOKENS, *ALPHABET, *("".join(pair) for pair in split)])
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return byte_level(models.BPE(vocabulary, split, dropout=dropout))


def unigram(scores: dict[str, float]) -> Tokenizer:
    """With these tokens' log-likelihoods; other bytes' are -20."""
    vocabulary = dict.fromkeys(ALPHABET, -20.0) | scores
    return byte_level(
        models.Unigram([*((name, 0.0) for name in SPECIAL_TOKENS), *vocabulary.items()])
    )


def frequencies(encoder: sampling.SampledEncoder, text: str) -> Counter[Sequence[int]]:
    return Counter(map(tuple, encoder.encode_batch([text] * DRAWS)))


def assert_law(drawn: Counter[Sequence[int]], law: dict[Sequence[int], float]) -> None:
    assert sum(law.values()) == pytest.approx(1)
    assert set(drawn) <= set(law)
    for segmentation, probability in law.items():
        deviation = math.sqrt(DRAWS * probability * (1 - probability))
        # One more for the rarest, whose counts are Poisson rather than normal.
        assert abs(drawn[segmentation] - DRAWS * probability) <= 6 * deviation + 6


# --- The same as the tokenizer's own, and reversible --------------------------------------------


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@given(text=texts)
@example(text="<s>a</s><pad>")
@example(text="A" * 100 + " the dog's   dogs" * 20)
def test_without_chance_it_is_the_tokenizer(
    trained: dict[str, Tokenizer], kind: str, text: str
) -> None:
    tokenizer = trained[kind]
    encoder = SubwordSampler(tokenizer, NEVER[kind]).encoder(1)
    (ids,), (expected,) = encoder.encode_batch([text]), tokenizer.encode_batch([text])
    if kind == "unigram" and ids != expected:  # equally likely: either is right
        scores = dict(scores_of(tokenizer))
        assert math.fsum(map(scores.get, ids)) == pytest.approx(
            math.fsum(map(scores.get, expected)), abs=1e-6
        )
    else:
        assert ids == expected


def scores_of(tokenizer: Tokenizer) -> Iterator[tuple[int, float]]:
    for number, (_, score) in enumerate(json.loads(tokenizer.to_json())["model"]["vocab"]):
        yield number, score


@given(text=texts | st.lists(texts, max_size=5).map(" ".join))
@example(text="a\u00a0 b \x1c c\u2003d  e 's it's")
def test_words_that_are_remembered_are_the_tokenizers(
    trained: dict[str, Tokenizer], text: str
) -> None:
    words = sampling._Words(trained["bpe"])
    assert words.of(text) == trained["bpe"].words(text)
    assert words.of(text) == trained["bpe"].words(text)


def test_without_augmentation_it_is_the_tokenizer(trained: dict[str, Tokenizer]) -> None:
    for tokenizer in trained.values():
        encoder = SubwordSampler(tokenizer, recipe.Augment()).encoder(1)
        assert encoder.encode_batch(["a dog", ""]) == tokenizer.encode_batch(["a dog", ""])


@pytest.mark.parametrize(
    ("kind", "augment"),
    [
        ("bpe", USUAL["bpe"]),
        ("bpe", recipe.Augment(bpe_dropout=0.9)),
        ("unigram", USUAL["unigram"]),
        ("unigram", recipe.Augment(unigram_alpha=1e-9)),
    ],
    ids=str,
)
@given(text=texts, number=st.integers(0, 2**64))
@example(text="<s>a</s><pad>", number=0)
def test_any_text_comes_back_and_holds_no_special_token(
    trained: dict[str, Tokenizer], kind: str, augment: recipe.Augment, text: str, number: int
) -> None:
    (ids,) = SubwordSampler(trained[kind], augment).encoder(number).encode_batch([text])
    assert trained[kind].decode_batch([ids]) == [trained[kind].normalize(text)]
    assert all(token > END for token in ids)


# --- What the draws follow from -----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@given(data=st.data())
def test_calls_may_be_cut_anywhere(
    trained: dict[str, Tokenizer], kind: str, data: st.DataObject
) -> None:
    sentences = [source for source, _ in pairs("test")[:60]]
    cuts = sorted(data.draw(st.lists(st.integers(0, 60), max_size=5)))
    sampler = SubwordSampler(trained[kind], USUAL[kind])
    whole, parts = sampler.encoder(3, 1), sampler.encoder(3, 1)
    cut = [parts.encode_batch(sentences[a:b]) for a, b in pairwise([0, *cuts, 60])]
    assert list(chain.from_iterable(cut)) == whole.encode_batch(sentences)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_nothing_but_the_numbers_and_the_texts_decides(
    trained: dict[str, Tokenizer], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentences = [source for source, _ in pairs("test")[:200]]
    fresh = SubwordSampler(trained[kind], USUAL[kind]).encoder(1, 2, 3).encode_batch(sentences)
    # Another process' sampler has seen other texts, forgets all the time and is used in turns.
    monkeypatch.setattr(sampling, "_REMEMBERED", 3)
    monkeypatch.setattr(sampling, "_LONG_WORD", 5)
    used = SubwordSampler(trained[kind], USUAL[kind])
    other, again = used.encoder(9), used.encoder(1, 2, 3)
    interleaved = []
    for sentence in sentences:
        other.encode_batch([sentence[::-1], sentence])
        interleaved += again.encode_batch([sentence])
    assert interleaved == fresh
    assert used.encoder(1, 2, 4).encode_batch(sentences) != fresh


DROPPED = ["abcd e", "abcd e", "a b cd e", "ab c de", "a b c d e", "a b cd e"]
SAMPLED = ["ab c", "abc", "ab c", "a bc", "ab c", "a b c"]


def test_the_draws_are_the_same_on_every_machine_and_version() -> None:
    # Written down once. Where this fails, resumed jobs will see other data than undisturbed ones.
    tokenizer = bpe("a b", "c d", "ab cd", "d e")
    encoder = SubwordSampler(tokenizer, recipe.Augment(bpe_dropout=0.5)).encoder(1, 2, 3)
    ids = encoder.encode_batch(["abcde"] * 6)
    assert [" ".join(tokenizer.pieces(each)) for each in ids] == DROPPED
    tokenizer = unigram({"a": -2, "b": -2, "c": -2, "ab": -3, "bc": -3, "abc": -4})
    encoder = SubwordSampler(tokenizer, recipe.Augment(unigram_alpha=0.5)).encoder(1, 2, 3)
    ids = encoder.encode_batch(["abc"] * 6)
    assert [" ".join(tokenizer.pieces(each)) for each in ids] == SAMPLED


# --- BPE-dropout --------------------------------------------------------------------------------


def algorithm_1(tokenizer: Tokenizer, merges: Sequence[str], word: str, p: float) -> dict:
    """The probability of each segmentation, by following every branch of the paper's algorithm."""
    ranks = {tuple(merge.split()): rank for rank, merge in enumerate(merges)}

    @cache
    def ends(tokens: tuple[str, ...]) -> dict[tuple[str, ...], float]:
        found = [(ranks[pair], i) for i, pair in enumerate(pairwise(tokens)) if pair in ranks]
        law: Counter[tuple[str, ...]] = Counter({tokens: p ** len(found)})
        for tried, (_, i) in enumerate(sorted(found)):
            merged = (*tokens[:i], tokens[i] + tokens[i + 1], *tokens[i + 2 :])
            for end, probability in ends(merged).items():
                law[end] += p**tried * (1 - p) * probability
        return law

    number = {name: token for token, name in enumerate_tokens(tokenizer)}
    return {tuple(number[t] for t in end): share for end, share in ends(tuple(word)).items()}


def enumerate_tokens(tokenizer: Tokenizer) -> Iterator[tuple[int, str]]:
    for token in range(tokenizer.vocabulary_size):
        yield token, tokenizer.pieces([token])[0]


MERGES = ("a b", "b c", "ab c", "c d", "a a", "abc d", "d a", "aa b", "abcd abcd")


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("word", ["ab", "abcd", "aaab", "abcdabcd"])
def test_dropout_is_the_papers_algorithm(word: str, p: float) -> None:
    tokenizer = bpe(*MERGES)
    drawn = frequencies(
        SubwordSampler(tokenizer, recipe.Augment(bpe_dropout=p)).encoder(1, 2), word
    )
    assert_law(drawn, algorithm_1(tokenizer, MERGES, word, p))


@pytest.mark.parametrize("p", [0.1, 0.5])
@pytest.mark.parametrize("word", ["ab", "abxcd", "xefxefx"])
def test_dropout_is_that_of_tokenizers_where_merges_do_not_overlap(word: str, p: float) -> None:
    # Where they do, tokenizers counts merges that are no longer possible among the candidates.
    merges = ("a b", "c d", "e f")
    encoder = SubwordSampler(bpe(*merges), recipe.Augment(bpe_dropout=p)).encoder(1)
    library = bpe(*merges, dropout=p)._backend  # a Tokenizer remembers what it drew
    drawn = library.encode_batch([word] * DRAWS, add_special_tokens=False)
    ours, theirs = frequencies(encoder, word), Counter(tuple(each.ids) for each in drawn)
    for segmentation in ours | theirs:
        share = (ours[segmentation] + theirs[segmentation]) / DRAWS / 2
        deviation = math.sqrt(2 * DRAWS * share * (1 - share))
        # 8 standard deviations: their draws are others in every run.
        assert abs(ours[segmentation] - theirs[segmentation]) <= 8 * deviation + 8


@pytest.mark.parametrize("p", [1e-5, 0.1, 0.5, 0.999])
def test_runs_of_kept_merges_are_geometric(p: float) -> None:
    law = SubwordSampler(bpe(), recipe.Augment(bpe_dropout=p))._law
    assert law is not None
    for kept in (0, 1, 10, 1000):
        edge = (1 - p) ** kept  # at least this many are kept where the uniform number is below it
        if edge > 1e-12:
            below, above = law.draws(np.array([edge * (1 - 1e-9), min(edge * (1 + 1e-9), 1.0)]))
            assert below >= kept
            assert above < kept or kept == 0
    assert law.draws(np.array([1 - 2**-53])) == [0]


def test_a_word_of_a_hundred_kilobytes_takes_a_moment(trained: dict[str, Tokenizer]) -> None:
    for kind, tokenizer in trained.items():
        encoder = SubwordSampler(tokenizer, USUAL[kind]).encoder(1)
        text = "thedog" * 20_000
        assert tokenizer.decode_batch(encoder.encode_batch([text])) == [text]


# --- Unigram ------------------------------------------------------------------------------------

SCORES = {"a": -3.0, "b": -2.5, "c": -4.0, "ab": -3.5, "bc": -5.0, "abc": -6.0, "ca": -2.0}


@pytest.mark.parametrize("alpha", [0.1, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("word", ["a", "abc", "abcab", "bcabca"])
def test_unigram_is_drawn_by_likelihood_to_the_power_of_alpha(word: str, alpha: float) -> None:
    tokenizer = unigram(SCORES)
    number = {name: token for token, name in enumerate_tokens(tokenizer)}

    def segmentations(rest: str) -> Iterator[tuple[str, ...]]:
        if not rest:
            yield ()
        for length in range(1, len(rest) + 1):
            if rest[:length] in SCORES:
                yield from ((rest[:length], *others) for others in segmentations(rest[length:]))

    weights = {
        tuple(number[token] for token in each): math.exp(alpha * sum(map(SCORES.__getitem__, each)))
        for each in segmentations(word)
    }
    law = {each: weight / sum(weights.values()) for each, weight in weights.items()}
    augment = recipe.Augment(unigram_alpha=alpha)
    assert_law(frequencies(SubwordSampler(tokenizer, augment).encoder(1), word), law)


def test_an_augmentation_for_another_kind_is_refused(trained: dict[str, Tokenizer]) -> None:
    with pytest.raises(ValueError, match=r"bpe_dropout=0\.1.* is not for .* Unigram"):
        SubwordSampler(trained["unigram"], USUAL["bpe"])
    with pytest.raises(ValueError, match=r"unigram_alpha=0\.2.* is not for .* BPE"):
        SubwordSampler(trained["bpe"], USUAL["unigram"])
