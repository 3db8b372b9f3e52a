"""Text ↔ token ids, reversible on any Unicode text: trained from the corpus, cached by hash.

Both kinds see the UTF-8 bytes of the text, each byte as one printable character (`ByteLevel`).
That makes them reversible by construction: there is no unknown character and nothing to normalise,
and a space belongs to the word after it. Unigram's own byte fallback is not used because its usual
companion, Metaspace, cannot tell "▁" in the text from a space.
"""

import hashlib
import json
import uuid
from collections.abc import Iterator, Sequence

import numpy as np
import tokenizers
from pyarrow.fs import FileSystem, FileType
from tokenizers import decoders, models, pre_tokenizers, trainers

from pipeline import recipe
from pipeline.corpus import Corpus
from pipeline.files import filesystem_of

PAD, START, END = 0, 1, 2
"""The ids of <pad>, <s> and </s>, of every tokenizer. Text never encodes to them."""
SPECIAL_TOKENS = ["<pad>", "<s>", "</s>"]

_PIECES_PER_READ = 16


class Tokenizer:
    """A trained tokenizer. Safe to use from several threads."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        ids = [backend.token_to_id(token) for token in SPECIAL_TOKENS]
        if ids != [PAD, START, END]:
            raise ValueError(f"{SPECIAL_TOKENS} must have the ids 0, 1 and 2, not {ids}")
        # Not saved with the JSON: a literal "<s>" in the text is text.
        backend.encode_special_tokens = True
        self._backend = backend

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
    def digest(self) -> str:
        """sha256 of the JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Each text's ids, without special tokens; an empty text has none."""
        encodings = self._backend.encode_batch(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode_batch(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """The texts; special tokens are left out. Ids that cut a character apart, as a model may
        produce, give U+FFFD."""
        return list(self._backend.decode_batch([list(each) for each in ids]))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Each token as a person can read it: a leading space is "▁", special tokens as named, and
        a token that is not whole characters is its bytes, as in "<C3>"."""
        return [self._readable(token) for token in ids]

    def _readable(self, token: int) -> str:
        name = str(self._backend.id_to_token(token))
        if token in (PAD, START, END):
            return name
        data = bytes(_BYTE_OF[character] for character in name)
        try:
            return data.decode().replace(" ", "▁")
        except UnicodeDecodeError:
            return "".join(f"<{byte:02X}>" for byte in data)


def _byte_of_characters() -> dict[str, int]:
    """ByteLevel's alphabet: printable Latin-1 stands for itself, the other bytes for the characters
    from U+0100 on, in order (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}


_BYTE_OF = _byte_of_characters()


def train_tokenizer(corpus: Corpus, config: recipe.Tokenizer, storage: str) -> str:
    """The path of the corpus' tokenizer.json: found on storage, or trained and written there now.

    Training runs in this process and streams the pairs; in memory are only the distinct words.
    BPE gives the same tokenizer each time. Unigram's trainer adds floats in hash order and does
    not, to the last digits: there it is this cache that makes a job repeatable.
    """
    filesystem, root = filesystem_of(storage)
    parts = {"corpus": corpus.digest, "config": config.model_dump(mode="json")}
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]
    folder = f"{root.rstrip('/')}/tokenizers/{key}"
    if filesystem.get_file_info(f"{folder}/tokenizer.json").type != FileType.File:
        tokenizer = _train(_texts(corpus, config.training_pairs), config)
        _write_whole(filesystem, folder, tokenizer.to_json().encode())
    if "://" in storage:
        return f"{storage.rstrip('/')}/tokenizers/{key}/tokenizer.json"
    return f"{folder}/tokenizer.json"


def _texts(corpus: Corpus, pairs: int) -> Iterator[str]:
    """Both sides of this many pairs, from pieces spread evenly over the corpus."""
    pieces = len(corpus.pieces)
    wanted = min(pieces, -(-pairs // corpus.pieces[0].rows))
    numbers = np.arange(wanted) * pieces // wanted
    left = pairs
    for start in range(0, wanted, _PIECES_PER_READ):
        table = corpus.read(numbers[start : start + _PIECES_PER_READ].tolist()).slice(0, left)
        left -= table.num_rows
        for column in ("source", "target"):
            yield from table[column].to_pylist()


def _train(texts: Iterator[str], config: recipe.Tokenizer) -> Tokenizer:
    kinds = {
        "bpe": (models.BPE, trainers.BpeTrainer),
        "unigram": (models.Unigram, trainers.UnigramTrainer),
    }
    model, trainer = kinds[config.kind]
    backend = tokenizers.Tokenizer(model())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
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


def _write_whole(filesystem: FileSystem, folder: str, data: bytes) -> None:
    """A reader finds the whole file or none; of two writers, each writes a whole one."""
    filesystem.create_dir(folder, recursive=True)
    temporary = f"{folder}/{uuid.uuid4().hex}.tmp"
    with filesystem.open_output_stream(temporary) as stream:
        stream.write(data)
    filesystem.move(temporary, f"{folder}/tokenizer.json")
