"""Text ↔ token ids, reversible on any Unicode text: trained from the corpus, cached by hash.

Both kinds see the UTF-8 bytes of the text, each byte as one printable character (`ByteLevel`).
That makes them reversible by construction: there is no unknown character and nothing that must be
normalised, and a space belongs to the word after it. Unigram's own byte fallback is not used
because its usual companion, Metaspace, cannot tell "▁" in the text from a space.

Where a Unicode normal form is asked for, it is part of the tokenizer, so that it is applied
wherever the model is used; then what comes back is the text in that form.
"""

import hashlib
import json
import math
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import chain
from typing import Literal, Protocol

import pyarrow as pa
import tokenizers
from pyarrow.fs import FileSystem, FileType, LocalFileSystem
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from heliograph.pipeline.request import recipe
from heliograph.pipeline.storage.filesystems import filesystem_of

PAD, START, END = 0, 1, 2
"""The ids of <pad>, <s> and </s>, of every tokenizer. Text never encodes to them."""
SPECIAL_TOKENS = ["<pad>", "<s>", "</s>"]

_PIECES_PER_READ = 16
_REMEMBERED_CHARACTERS = 1_000_000
"""Of parts of texts: about 150,000 words, in some 40 MB."""

_UNSPACED = (
    r"(?=\p{L})[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"
    r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\x{20000}-\x{3ffff}]"
)
"""A letter of a script that is written without spaces: Thai, Lao, Tibetan, Burmese, Khmer, Chinese
and Japanese."""
WORDS = (
    r"'(?:s|t|re|ve|m|ll|d)"
    rf"| ?(?:{_UNSPACED}\p{{M}}*){{1,8}}"
    rf"| ?(?:(?!{_UNSPACED})[\p{{L}}\p{{M}}])+"
    r"| ?\p{N}+| ?[^\s\p{L}\p{M}\p{N}]+|\s+(?!\S)|\s+"
)
"""Where text is cut into words, which no token crosses: GPT-2's, with two differences (issue 15,
11). A combining mark belongs to the letter before it: GPT-2 cuts "हिन्दी" into four. And where there
are no spaces, eight letters are a word: GPT-2 takes all up to the next comma for one, which is
rarely seen twice, and each of which the trainer keeps."""


class Tokenizer:
    """A trained tokenizer. Safe to use from several threads."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        ids = [backend.token_to_id(token) for token in SPECIAL_TOKENS]
        if ids != [PAD, START, END]:
            raise ValueError(f"{SPECIAL_TOKENS} must have the ids 0, 1 and 2, not {ids}")
        # Not saved with the JSON: a literal "<s>" in the text is text.
        backend.encode_special_tokens = True
        self._backend = backend
        self._normalizer = backend.normalizer
        self._pre_tokenizer = backend.pre_tokenizer
        self._known: dict[str, tuple[int, ...]] = {}
        self._known_characters = 0

    @classmethod
    def load(cls, path: str) -> "Tokenizer":
        """From a tokenizer.json; raises FileNotFoundError."""
        filesystem, file = filesystem_of(path)
        with filesystem.open_input_stream(file) as stream:
            return cls.from_json(stream.read().decode())

    @classmethod
    def from_json(cls, text: str) -> "Tokenizer":
        """From what `to_json` gave; raises ValueError if the special tokens are not ours."""
        return cls(tokenizers.Tokenizer.from_str(text))

    def to_json(self) -> str:
        """In the format of `tokenizers`, which every Hugging Face tool reads."""
        return str(self._backend.to_str())

    @property
    def vocabulary_size(self) -> int:
        """Tokens, special ones included: the rows of the embedding."""
        return int(self._backend.get_vocab_size())

    @property
    def vocabulary(self) -> list[str]:
        """The tokens' names as in the JSON, by their ids; no two are the same."""
        ids = self._backend.get_vocab()
        return sorted(ids, key=lambda name: int(ids[name]))

    @property
    def digest(self) -> str:
        """sha256 of the JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def normalize(self, text: str) -> str:
        """The text as it is tokenized, and as `decode_batch` gives it back."""
        return str(self._normalizer.normalize_str(text)) if self._normalizer else text

    def words(self, text: str) -> list[str]:
        """The normalised text cut where no token crosses, in the characters that tokens are made
        of, one for each byte."""
        words = self._pre_tokenizer.pre_tokenize_str(self.normalize(text))
        return [word for word, _ in words]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Each text's ids, without special tokens; an empty text has none.

        As `tokenizers` gives them, at several times its speed where texts are words with spaces
        between them: what a word becomes is remembered (issue 17, 1).
        """
        cut, known = [parts_of(text) for text in texts], self._known
        new = list(set(chain.from_iterable(cut)).difference(known))
        encodings = self._backend.encode_batch_fast(new, add_special_tokens=False)
        known.update((part, tuple(each.ids)) for part, each in zip(new, encodings, strict=True))
        self._known_characters += sum(map(len, new))
        if self._known_characters > _REMEMBERED_CHARACTERS:
            self._known, self._known_characters = {}, 0  # not cleared: others may be reading it
        return [list(chain.from_iterable(map(known.__getitem__, parts))) for parts in cut]

    def decode_batch(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """The texts; special tokens are left out. Ids that cut a character apart, as a model may
        produce, give U+FFFD."""
        return list(self._backend.decode_batch([list(each) for each in ids]))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Each token as a person can read it: a leading space is "▁", special tokens as named, and
        a token that is not whole characters is its bytes, as in "<C3>"."""
        return [self._readable(token) for token in ids]

    def bytes_of(self, token: int) -> bytes:
        """What a token stands for; special tokens for nothing."""
        if token in (PAD, START, END):
            return b""
        return bytes(_BYTE_OF[character] for character in str(self._backend.id_to_token(token)))

    def _readable(self, token: int) -> str:
        if token in (PAD, START, END):
            return SPECIAL_TOKENS[token]
        data = self.bytes_of(token)
        try:
            return data.decode().replace(" ", "▁")
        except UnicodeDecodeError:
            return "".join(f"<{byte:02X}>" for byte in data)


def parts_of(text: str) -> list[str]:
    """The text in parts, none of whose tokens depend on the others: cut before every space.

    No token crosses the beginning of a word, and a space after anything but whitespace begins one
    whatever follows (`WORDS`). A text with other whitespace, or with spaces that are not single,
    is one part.
    """
    if text.split() != text.split(" "):
        return [text]
    return text.replace(" ", "\n ").split("\n")


@lru_cache(maxsize=1)
def shared_tokenizer(text: str) -> Tokenizer:
    """`Tokenizer.from_json`, one for each process: of each that was ever used, `tokenizers` (0.23)
    keeps some 3 MB, which would add up over the tasks that a process runs."""
    return Tokenizer.from_json(text)


def byte_of_characters() -> dict[str, int]:
    """ByteLevel's alphabet: printable Latin-1 stands for itself, the other bytes for the characters
    from U+0100 on, in order (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}


_BYTE_OF = byte_of_characters()


class Pieces(Protocol):
    """What a tokenizer is trained from: a corpus, or several of them."""

    @property
    def digest(self) -> str: ...

    @property
    def piece_count(self) -> int: ...

    def read(self, piece_numbers: Sequence[int]) -> pa.Table:
        """The pairs of these pieces, as columns source and target."""


def train_tokenizer(
    corpus: Pieces,
    config: recipe.Tokenizer,
    storage: str,
    unicode: Literal["NFC", "NFKC"] | None = None,
) -> str:
    """The path of the corpus' tokenizer.json: found on storage, or trained and written there now.
    With `unicode` it normalises text before anything else, here and ever after.

    Training runs in this process and streams the pairs; in memory are only the distinct words.
    BPE gives the same tokenizer each time. Unigram's trainer adds floats in hash order and does
    not, to the last digits: there it is this cache that makes a job repeatable.
    """
    filesystem, root = filesystem_of(storage)
    parts = {
        "corpus": corpus.digest,
        "config": config.model_dump(mode="json"),
        "unicode": unicode,
        "words": hashlib.sha256(WORDS.encode()).hexdigest(),
    }
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]
    folder = f"{root.rstrip('/')}/tokenizers/{key}"
    if filesystem.get_file_info(f"{folder}/tokenizer.json").type != FileType.File:
        tokenizer = _train(_texts(corpus, config.training_pairs), config, unicode)
        _write_once(filesystem, folder, tokenizer.to_json().encode())
    if "://" in storage:
        return f"{storage.rstrip('/')}/tokenizers/{key}/tokenizer.json"
    return f"{folder}/tokenizer.json"


def _texts(corpus: Pieces, pairs: int) -> Iterator[str]:
    """Both sides of about this many pairs, from pieces spread evenly over the corpus."""
    sample = _spread(min(corpus.piece_count, _PIECES_PER_READ), corpus.piece_count)
    pairs_per_piece = corpus.read(sample).num_rows / len(sample)
    wanted = min(corpus.piece_count, math.ceil(pairs / pairs_per_piece))
    numbers, left = _spread(wanted, corpus.piece_count), pairs
    for start in range(0, wanted, _PIECES_PER_READ):
        table = corpus.read(numbers[start : start + _PIECES_PER_READ]).slice(0, left)
        left -= table.num_rows
        for column in ("source", "target"):
            yield from table[column].to_pylist()


def _spread(wanted: int, pieces: int) -> list[int]:
    """So many of the pieces, at even distances."""
    return [number * pieces // wanted for number in range(wanted)]


def _train(texts: Iterator[str], config: recipe.Tokenizer, unicode: str | None) -> Tokenizer:
    kinds = {
        "bpe": (models.BPE, trainers.BpeTrainer),
        "unigram": (models.Unigram, trainers.UnigramTrainer),
    }
    model, trainer = kinds[config.kind]
    backend = tokenizers.Tokenizer(model())
    if unicode:
        backend.normalizer = {"NFC": normalizers.NFC, "NFKC": normalizers.NFKC}[unicode]()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        texts,
        trainer(
            vocab_size=config.vocabulary_size,
            special_tokens=SPECIAL_TOKENS,
            initial_alphabet=sorted(_BYTE_OF),
            show_progress=False,
        ),
    )
    return Tokenizer(backend)


def _write_once(filesystem: FileSystem, folder: str, data: bytes) -> None:
    """A reader finds the whole file or none; of two writers the first has written it: the other's
    may differ, and a job may train with the first one's already (issue 15, 4)."""
    filesystem.create_dir(folder, recursive=True)
    temporary, path = f"{folder}/{uuid.uuid4().hex}.tmp", f"{folder}/tokenizer.json"
    with filesystem.open_output_stream(temporary) as stream:
        stream.write(data)
    if isinstance(filesystem, LocalFileSystem):
        with suppress(OSError):  # it is there, or the disk knows no second names
            os.link(temporary, path)
    if filesystem.get_file_info(path).type == FileType.File:
        filesystem.delete_file(temporary)
    else:
        filesystem.move(temporary, path)
