"""A text that a translation has to begin with, as a constraint on its tokens.

The tokens of "Der Hu" are not the first tokens of "Der Hund": where the text breaks off inside a
word, a model would hardly ever go on as it should. So only the words before the last are given as
tokens. For the last one any tokens will do whose bytes begin with it, or which are its beginning.
"""

from bisect import bisect_left
from collections.abc import Sequence

from heliograph.pipeline.steps.tokenizer import Tokenizer


class TokenBytes:
    """The tokens of a vocabulary by the bytes that they stand for, special ones left out."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.of = [tokenizer.bytes_of(token) for token in range(tokenizer.vocabulary_size)]
        self._sorted = sorted((data, token) for token, data in enumerate(self.of) if data)

    def agreeing(self, text: bytes) -> list[int]:
        """The tokens that begin with the text, or that the text begins with."""
        found = []
        for end in range(1, len(text)):
            found += self._starting_at(text[:end], exactly=True)
        return found + self._starting_at(text, exactly=False)

    def _starting_at(self, text: bytes, exactly: bool) -> list[int]:
        found = []
        for position in range(bisect_left(self._sorted, (text, 0)), len(self._sorted)):
            data, token = self._sorted[position]
            if not data.startswith(text) or (exactly and data != text):
                break
            found.append(token)
        return found


class TextPrefix:
    """A `model.Prefix`: the translation's text begins with `text`, as the tokenizer normalises it.

    Attributes:
        longest: tokens within which the prefix is written, whichever tokens are taken.
    """

    def __init__(self, text: str, tokenizer: Tokenizer, token_bytes: TokenBytes) -> None:
        self._token_bytes = token_bytes
        data = tokenizer.normalize(text).encode()
        words = tokenizer.words(text)
        left = len(data) - len(words[-1]) if words else 0
        self._last = data[left:]
        self._tokens: list[int] = []
        for token in tokenizer.encode_batch([text])[0]:
            left -= len(token_bytes.of[token])
            if left < 0:
                break
            self._tokens.append(token)
        self.longest = len(self._tokens) + len(self._last)

    def allowed(self, tokens: Sequence[int]) -> Sequence[int] | None:
        """The tokens that may follow these; none, where these do not agree with the prefix."""
        given = len(self._tokens)
        if list(tokens[:given]) != self._tokens[: len(tokens)]:
            return []
        if len(tokens) < given:
            return [self._tokens[len(tokens)]]
        written = b"".join(self._token_bytes.of[token] for token in tokens[given:])
        if written.startswith(self._last):
            return None
        if not self._last.startswith(written):
            return []
        return self._token_bytes.agreeing(self._last[len(written) :])
