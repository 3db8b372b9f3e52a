"""Reversible on any text, no special token out of text, the same again, and cached."""

import unicodedata
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from shutil import rmtree
from typing import Any, Literal

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models

import heliograph.pipeline.steps.tokenizer
from heliograph.pipeline.corpus.corpus import Corpus
from heliograph.pipeline.request import recipe
from heliograph.pipeline.sources.embedded.grammar import pairs
from heliograph.pipeline.steps.tokenizer import (
    END,
    PAD,
    SPECIAL_TOKENS,
    START,
    Tokenizer,
    byte_of_characters,
    train_tokenizer,
)
from tests.pipeline.small_corpus import write_corpus

KINDS = ("bpe", "unigram")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("tokenizer") / "corpus"
    return write_corpus(folder, pairs("train")[:2_000], piece_rows=64)


@pytest.fixture(scope="module")
def trained(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    storage = str(tmp_path_factory.mktemp("storage"))
    configs = {kind: recipe.Tokenizer(kind=kind, vocabulary_size=500) for kind in KINDS}
    return {
        kind: Tokenizer.load(train_tokenizer(corpus, config, storage))
        for kind, config in configs.items()
    }


# What tokenizers are known to lose, beside anything else that Unicode has.
fragments = st.sampled_from(
    [*SPECIAL_TOKENS, "<unk>", "<0x41>", "▁", "Ġ", "Ċ", "The", " dog", "'s", " ", "   ", "\t", "\n"]
) | st.sampled_from(
    [
        "\r\n",
        "\0",
        "\u00a0",
        "\ufeff",
        "e\u0301",
        "\u0301",
        "é",
        "ﬁ",
        "İ",
        "👩\u200d👧",
        "\U0010ffff",
    ]
)
texts = st.lists(fragments | st.text(max_size=8), max_size=8).map("".join)


@pytest.mark.parametrize("kind", KINDS)
@given(text=texts)
@example(text="")
@example(text=" leading and trailing ")
@example(text="<s>a</s><pad>")
def test_any_text_comes_back_and_holds_no_special_token(
    trained: dict[str, Tokenizer], kind: str, text: str
) -> None:
    tokenizer = trained[kind]
    (ids,) = tokenizer.encode_batch([text])
    assert tokenizer.decode_batch([ids]) == [text]
    assert all(END < token < tokenizer.vocabulary_size for token in ids)


def as_the_library(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """The whole texts' ids, with nothing remembered."""
    backend = tokenizer._backend
    return [backend.encode(text, add_special_tokens=False).ids for text in texts]


@pytest.mark.parametrize("kind", KINDS)
@given(some=st.lists(texts | st.lists(texts, max_size=5).map(" ".join), max_size=4))
@example(some=["a\u00a0 b \x1c c\u2003d  e 's it's", "a dog", " a dog", "a dog "])
def test_what_is_remembered_is_what_the_library_gives(
    trained: dict[str, Tokenizer], kind: str, some: list[str]
) -> None:
    tokenizer = trained[kind]
    expected = as_the_library(tokenizer, some)
    assert tokenizer.encode_batch(some) == expected
    assert tokenizer.encode_batch(some[::-1]) == expected[::-1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", [None, "NFC", "NFKC"])
def test_a_text_is_cut_where_no_character_can_matter(
    corpus: Corpus, storage: str, kind: str, form: Literal["NFC", "NFKC"] | None
) -> None:
    """Beside a space, every character of Unicode that is or becomes a space, or another."""
    config = recipe.Tokenizer(kind=kind, vocabulary_size=400)
    tokenizer = Tokenizer.load(train_tokenizer(corpus, config, storage, form))
    strange = [
        character
        for character in map(chr, range(0x110000))
        if unicodedata.category(character) in ("Zs", "Zl", "Zp", "Cc", "Cf")
        or not unicodedata.is_normalized("NFKD", character)
    ]
    for first in range(0, len(strange), 1000):
        for pattern in ("a{0} dog", "a {0}dog", "{0} {0}"):
            some = [pattern.format(character) for character in strange[first : first + 1000]]
            assert tokenizer.encode_batch(some) == as_the_library(tokenizer, some)


def test_what_is_remembered_is_bounded(
    corpus: Corpus, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heliograph.pipeline.steps.tokenizer, "_REMEMBERED_CHARACTERS", 1000)
    config = recipe.Tokenizer(vocabulary_size=400)
    tokenizer = Tokenizer.load(train_tokenizer(corpus, config, storage))
    for text in (f"dog{number} {'x' * number}" for number in range(300)):
        assert tokenizer.encode_batch([text] * 3) == as_the_library(tokenizer, [text] * 3)
        assert sum(map(len, tokenizer._known)) <= 1000


def test_threads_may_share_a_tokenizer(
    corpus: Corpus, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it forgets meanwhile what another of them is about to look up."""
    monkeypatch.setattr(heliograph.pipeline.steps.tokenizer, "_REMEMBERED_CHARACTERS", 50)
    config = recipe.Tokenizer(vocabulary_size=400)
    tokenizer = Tokenizer.load(train_tokenizer(corpus, config, storage))
    sentences = [source for source, _ in pairs("test")[:400]]
    expected = as_the_library(tokenizer, sentences)
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda each: tokenizer.encode_batch([each])[0], sentences * 5)
    assert list(found) == expected * 5


@pytest.mark.parametrize("kind", KINDS)
def test_text_is_fewer_tokens_than_bytes(trained: dict[str, Tokenizer], kind: str) -> None:
    sentences = [source for source, _ in pairs("test")[:100]]
    tokens = sum(map(len, trained[kind].encode_batch(sentences)))
    assert tokens < 0.5 * sum(len(sentence.encode()) for sentence in sentences)


def test_json_is_the_whole_tokenizer(trained: dict[str, Tokenizer]) -> None:
    for tokenizer in trained.values():
        again = Tokenizer.from_json(tokenizer.to_json())
        assert again.digest == tokenizer.digest
        # The setting that keeps this text from becoming special tokens is not part of the JSON.
        assert again.encode_batch(["<s> </s>"]) == tokenizer.encode_batch(["<s> </s>"])
    assert trained["bpe"].digest != trained["unigram"].digest


def test_special_tokens_are_left_out_of_text(trained: dict[str, Tokenizer]) -> None:
    tokenizer = trained["bpe"]
    (ids,) = tokenizer.encode_batch(["a dog"])
    assert tokenizer.decode_batch([[START, *ids, END, PAD, PAD]]) == ["a dog"]


def test_pieces_are_readable(trained: dict[str, Tokenizer]) -> None:
    for tokenizer in trained.values():
        (ids,) = tokenizer.encode_batch(["the dog"])
        assert "".join(tokenizer.pieces(ids)) == "the▁dog"
        (ids,) = tokenizer.encode_batch(["日"])  # not in the corpus: three bytes
        assert tokenizer.pieces([START, *ids, END]) == ["<s>", "<E6>", "<97>", "<A5>", "</s>"]


def test_a_tokenizer_with_other_special_tokens_is_refused() -> None:
    other = Backend(models.BPE())
    other.add_special_tokens(["<s>", "<pad>", "</s>"])
    with pytest.raises(ValueError, match=r"must have the ids 0, 1 and 2, not \[1, 0, 2\]"):
        Tokenizer.from_json(other.to_str())


def test_training_twice_gives_the_same(corpus: Corpus, tmp_path: Path) -> None:
    config = recipe.Tokenizer(vocabulary_size=400)
    paths = [train_tokenizer(corpus, config, str(tmp_path / name)) for name in ("one", "two")]
    assert paths[0] != paths[1]
    assert Path(paths[0]).read_bytes() == Path(paths[1]).read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_trained_tokenizer_is_found_again(kind: str, storage: str, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", pairs("train")[:100], piece_rows=10)
    config = recipe.Tokenizer(kind=kind, vocabulary_size=300)
    path = train_tokenizer(corpus, config, storage)
    written = Path(path).read_bytes()
    rmtree(corpus.folder)  # it cannot be trained again
    assert train_tokenizer(corpus, config, storage) == path
    assert Path(path).read_bytes() == written
    assert [file.name for file in Path(storage).rglob("*") if file.is_file()] == ["tokenizer.json"]
    with pytest.raises(FileNotFoundError):
        train_tokenizer(corpus, config.model_copy(update={"vocabulary_size": 301}), storage)


def test_of_two_jobs_that_train_it_at_once_the_first_s_is_both_s(
    storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unigram's trainer does not give the same twice (issue 15, 4)."""
    corpus = write_corpus(tmp_path / "corpus", pairs("train")[:100], piece_rows=10)
    config = recipe.Tokenizer(kind="unigram", vocabulary_size=300)
    train, first = heliograph.pipeline.steps.tokenizer._train, b""

    def trained_meanwhile(*arguments: Any) -> Tokenizer:
        nonlocal first
        monkeypatch.setattr("heliograph.pipeline.steps.tokenizer._train", train)
        first = Path(train_tokenizer(corpus, config, storage)).read_bytes()
        other = config.model_copy(update={"vocabulary_size": 310})
        return train(arguments[0], other, arguments[2])

    monkeypatch.setattr("heliograph.pipeline.steps.tokenizer._train", trained_meanwhile)
    path = Path(train_tokenizer(corpus, config, storage))
    assert path.read_bytes() == first
    assert [file.name for file in path.parent.iterdir()] == ["tokenizer.json"]


def test_storage_may_be_a_url(corpus: Corpus, tmp_path: Path) -> None:
    path = train_tokenizer(corpus, recipe.Tokenizer(vocabulary_size=300), f"file://{tmp_path}/")
    assert path.startswith(f"file://{tmp_path}/tokenizers/")
    assert Tokenizer.load(path).vocabulary_size == 300


@pytest.mark.parametrize("kind", KINDS)
def test_a_small_corpus_gives_fewer_tokens(kind: str, storage: str, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", [("a dog", "ein Hund")], piece_rows=10)
    config = recipe.Tokenizer(kind=kind, vocabulary_size=8_000)
    tokenizer = Tokenizer.load(train_tokenizer(corpus, config, storage))
    assert 259 <= tokenizer.vocabulary_size < 300
    (ids,) = tokenizer.encode_batch(["something else: ∂"])
    assert tokenizer.decode_batch([ids]) == ["something else: ∂"]


def test_training_pairs_are_spread_over_the_corpus(storage: str, tmp_path: Path) -> None:
    reads: list[tuple[list[int], int]] = []

    class Watched(Corpus):
        def read(self, piece_numbers: Sequence[int]) -> pa.Table:
            table = super().read(piece_numbers)
            reads.append((list(piece_numbers), table.num_rows))
            return table

    plain = write_corpus(tmp_path / "corpus", pairs("train")[:1_000], piece_rows=5)
    corpus = Watched(**{field.name: getattr(plain, field.name) for field in fields(plain)})
    train_tokenizer(corpus, recipe.Tokenizer(vocabulary_size=300, training_pairs=250), storage)
    numbers = [number for piece_numbers, _ in reads for number in piece_numbers]
    assert numbers[:16] == [number * 200 // 16 for number in range(16)]  # how large pieces are
    assert numbers[16:] == list(range(0, 200, 4))
    assert max(rows for _, rows in reads) < 250  # never all of them in memory


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["NFC", "NFKC"])
def test_a_normal_form_belongs_to_the_tokenizer(
    corpus: Corpus, storage: str, kind: str, form: Literal["NFC", "NFKC"]
) -> None:
    config = recipe.Tokenizer(kind=kind, vocabulary_size=400)
    path = train_tokenizer(corpus, config, storage, form)
    assert path != train_tokenizer(corpus, config, storage)
    tokenizer = Tokenizer.load(path)
    for text in ("Cafe\u0301 ﬁn ½ Å", "<s>①</s>", "한", "ﬀ\u00a0…", ""):
        normal = unicodedata.normalize(form, text)
        assert tokenizer.normalize(text) == normal
        ids, same = tokenizer.encode_batch([text, normal])
        assert ids == same
        assert tokenizer.decode_batch([ids]) == [normal]


def test_the_vocabulary_is_that_of_normalized_text(storage: str, tmp_path: Path) -> None:
    decomposed, composed = "Cafe\u0301", "Café"
    corpus = write_corpus(tmp_path / "corpus", [(decomposed, decomposed)] * 50, piece_rows=10)
    tokenizer = Tokenizer.load(
        train_tokenizer(corpus, recipe.Tokenizer(vocabulary_size=300), storage, "NFC")
    )
    (ids,) = tokenizer.encode_batch([decomposed])
    assert tokenizer.pieces(ids) == [composed]


@pytest.mark.parametrize("kind", KINDS)
@given(text=texts)
def test_words_have_a_character_for_each_byte(
    trained: dict[str, Tokenizer], kind: str, text: str
) -> None:
    tokenizer = trained[kind]
    words = tokenizer.words(text)
    assert sum(map(len, words)) == len(text.encode())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's 12 dogs, isn't it?", ["It", "'s", " 12", " dogs", ",", " isn", "'t", " it", "?"]),
        ("हिन्दी भाषा", ["हिन्दी", " भाषा"]),
        ("שָׁלוֹם עולם", ["שָׁלוֹם", " עולם"]),
        ("مَرْحَبًا بالعالم", ["مَرْحَبًا", " بالعالم"]),
        (unicodedata.normalize("NFD", "Café über"), ["Cafe\u0301", " u\u0308ber"]),
        ("人人生而自由，在尊严和权利上", ["人人生而自由", "，", "在尊严和权利上"]),
        ("一二三四五六七八九十", ["一二三四五六七八", "九十"]),
        ("ラーメンが好き", ["ラーメンが好き"]),
        ("กำลังเรียนภาษาไทย", ["กำลังเรียน", "ภาษาไทย"]),
        ("DNA和RNA", ["DNA", "和", "RNA"]),
    ],
)
def test_words_are_those_of_every_script(
    trained: dict[str, Tokenizer], text: str, words: list[str]
) -> None:
    """No token crosses them: what is cut too small is never learned (issue 15, 11)."""
    found = trained["bpe"].words(text)
    assert [
        bytes(byte_of_characters()[character] for character in word).decode() for word in found
    ] == words
