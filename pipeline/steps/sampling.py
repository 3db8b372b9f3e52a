"""Words cut into other tokens each time they are seen, as a function of numbers such as the seed.

`tokenizers` has BPE-dropout and Unigram sampling, but draws from a generator that cannot be seeded,
and a resumed job must see exactly what an undisturbed one does. Nor is its BPE-dropout (0.23) the
paper's: merges that are no longer possible, but still in its queue, count as candidates that were
kept, which gives a word another chance each time (" standing" of Multi30k stays whole in 93 of 100
draws at 0.1, where Algorithm 1 gives 72). Here both are as published.

What is remembered between words (the states of a word's merging, the lattice of a word) follows
from the tokenizer alone; it saves time and never changes a draw.
"""

import json
import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush
from itertools import accumulate, pairwise
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from heliograph.pipeline.request import recipe
from heliograph.pipeline.steps.tokenizer import END, Tokenizer, parts_of

_REMEMBERED = 40_000
"""Words, with up to three kilobytes each, before all are forgotten."""
_LONG_WORD = 40
"""Characters above which a word is not remembered: it is large, and rarely seen again."""
_DRAWS_AT_ONCE = 1024


class SubwordSampler:
    """Samples the tokens of texts with one tokenizer. Made once per process: it remembers words."""

    def __init__(self, tokenizer: Tokenizer, augment: recipe.Augment) -> None:
        """Raises ValueError if the augmentation is not for this kind of tokenizer."""
        self._tokenizer = tokenizer
        self._words = _Words(tokenizer)
        self._law = _law(json.loads(tokenizer.to_json())["model"], augment)

    def encoder(self, *numbers: int) -> "SampledEncoder":
        """An encoder whose draws all follow from these numbers (at least 0) and the texts."""
        return SampledEncoder(self._tokenizer, self._words, self._law, numbers)


class SampledEncoder:
    """In place of a Tokenizer's `encode_batch`. Its draws go on from call to call: the same texts
    in the same order give the same ids, wherever they are cut into calls. Not for several threads.
    """

    def __init__(
        self, tokenizer: Tokenizer, words: "_Words", law: "_Law | None", numbers: Sequence[int]
    ) -> None:
        self._tokenizer = tokenizer
        self._words = words
        self._law = law
        self._draws = _draws(law, numbers) if law else iter(())

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Each text's ids, without special tokens. `Tokenizer.decode_batch` gives the texts back,
        as it does with `Tokenizer.encode_batch`."""
        if self._law is None:
            return self._tokenizer.encode_batch(texts)
        words, sample, draws = self._words.of, self._law.sample, self._draws
        return [sample(words(text), draws) for text in texts]


class _Words:
    """`Tokenizer.words` at a multiple of its speed, by remembering the parts of texts."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: dict[str, list[str]] = {}

    def of(self, text: str) -> list[str]:
        """The words, as `Tokenizer.words`."""
        words: list[str] = []
        for part in parts_of(text):
            words += self._known.get(part) or self._cut(part)
        return words

    def _cut(self, part: str) -> list[str]:
        words = self._tokenizer.words(part)
        if len(part) <= _LONG_WORD:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[part] = words
        return words


class _Law(Protocol):
    """A distribution over the segmentations of words."""

    def draws(self, uniforms: NDArray[np.floating[Any]]) -> list[float]:
        """The random numbers that `sample` uses, from uniform ones in [0, 1)."""

    def sample(self, words: Sequence[str], draws: Iterator[float]) -> list[int]:
        """The ids of these words, one behind the other."""


def _law(model: dict[str, Any], augment: recipe.Augment) -> _Law | None:
    """None: the tokenizer's own segmentation."""
    kind = model["type"]
    if augment.bpe_dropout > 0 and kind == "BPE":
        return _BpeDropout(model, augment.bpe_dropout)
    if augment.unigram_alpha is not None and kind == "Unigram":
        return _UnigramSampling(model, augment.unigram_alpha)
    if augment.bpe_dropout > 0 or augment.unigram_alpha is not None:
        raise ValueError(f"{augment!r} is not for a tokenizer of kind {kind}")
    return None


def _draws(law: _Law, numbers: Sequence[int]) -> Iterator[float]:
    """Without end. From raw random bits, whose stream NumPy never changes."""
    bits = np.random.Philox(np.random.SeedSequence(list(numbers)))
    while True:
        yield from law.draws((bits.random_raw(_DRAWS_AT_ONCE) >> np.uint64(11)) * 2.0**-53)


# --- BPE-dropout --------------------------------------------------------------------------------


class _BpeDropout:
    """Algorithm 1 of Provilkov et al. (2020): in every round each possible merge is dropped with
    probability p, the best of the others is made, and a round without others ends the word.

    A round is drawn lazily: merges are tried in order of priority until one is kept. The random
    numbers are how many tries succeed before one is dropped, so that a word in which none is, the
    commonest case, costs one draw and one look-up.
    """

    def __init__(self, model: dict[str, Any], dropout: float) -> None:
        self._vocabulary: dict[str, int] = model["vocab"]
        self._merges: dict[tuple[int, int], tuple[int, int]] = {}
        """Two neighbours → the rank of their merge, and what they become."""
        for rank, (left, right) in enumerate(model["merges"]):
            pair = (self._vocabulary[left], self._vocabulary[right])
            self._merges[pair] = (rank, self._vocabulary[left + right])
        # The probability of 1, 2, … kept in a row, to what 53 bits can tell apart. Cut at 65,536:
        # with p below 0.0006 a word of more bytes than that sees a little too many drops.
        size = int(min(1 << 16, 1 + 53 * math.log(2) / -math.log1p(-dropout)))
        self._kept = np.multiply.accumulate(np.full(size, 1 - dropout))[::-1].copy()
        self._plain: dict[str, list[int]] = {}

    def draws(self, uniforms: NDArray[np.floating[Any]]) -> list[float]:
        """How many are kept before one is dropped: t with probability p (1 - p)^t."""
        kept = len(self._kept) - np.searchsorted(self._kept, uniforms, "right")
        return cast(list[float], kept.tolist())

    def sample(self, words: Sequence[str], draws: Iterator[float]) -> list[int]:
        ids: list[int] = []
        for word in words:
            plain, keep = self._plain.get(word) or self._remember(word), next(draws)
            merges = len(word) - len(plain)
            ids += plain if keep >= merges else self._segment(word, keep, draws)
        return ids

    def _remember(self, word: str) -> list[int]:
        """What the word is if nothing is dropped."""
        plain = self._segment(word, math.inf, iter(()))
        if len(word) <= _LONG_WORD:
            if len(self._plain) >= _REMEMBERED:
                self._plain.clear()
            self._plain[word] = plain
        return plain

    def _segment(self, word: str, keep: float, draws: Iterator[float]) -> list[int]:
        """The word's ids if the first `keep` tries succeed; n log n for n bytes."""
        tokens = list(map(self._vocabulary.__getitem__, word))
        left, right = list(range(-1, len(tokens) - 1)), [*range(1, len(tokens)), -1]
        found = enumerate(map(self._merges.get, pairwise(tokens)))
        queue = [(merge[0], position, merge[1]) for position, merge in found if merge]
        heapify(queue)
        dropped = []
        while queue:
            merge = heappop(queue)
            rank, position, token = merge
            gone = right[position]
            best = self._merges.get((tokens[position], tokens[gone]))
            if gone < 0 or not best or best[0] != rank:
                continue  # one of the two has become another token since: no candidate any more
            if not keep:
                keep = next(draws)
                dropped.append(merge)
                continue
            keep -= 1
            before, after = left[position], right[gone]
            tokens[position], tokens[gone], right[position] = token, -1, after
            if before >= 0 and (new := self._merges.get((tokens[before], token))):
                heappush(queue, (new[0], before, new[1]))
            if after >= 0:
                left[after] = position
                if new := self._merges.get((token, tokens[after])):
                    heappush(queue, (new[0], position, new[1]))
            while dropped:
                heappush(queue, dropped.pop())
        return [token for token in tokens if token >= 0]


# --- Unigram ------------------------------------------------------------------------------------


class _Ways(NamedTuple):
    """The tokens that end at one position of a word."""

    cumulative: list[float]
    """Their probabilities, each with those before it; the last is 1."""
    starts: list[int]
    tokens: list[int]


class _Lattice(NamedTuple):
    word: str
    likelihoods: list[float]
    """[i]: log of the sum of likelihood ** alpha over all segmentations of the first i bytes."""
    ways: dict[int, _Ways]
    """By end, as far as they are known."""


class _UnigramSampling:
    """Subword regularization, Kudo (2018): a segmentation with probability ∝ likelihood ** alpha
    among all there are, by forward filtering and backward sampling: one random number a token."""

    def __init__(self, model: dict[str, Any], alpha: float) -> None:
        self._tokens = {
            token: (number, alpha * score)
            for number, (token, score) in enumerate(model["vocab"])
            if number > END
        }
        self._longest = max(map(len, self._tokens))
        self._lattices: dict[str, _Lattice] = {}

    def draws(self, uniforms: NDArray[np.floating[Any]]) -> list[float]:
        return cast(list[float], uniforms.tolist())

    def sample(self, words: Sequence[str], draws: Iterator[float]) -> list[int]:
        ids: list[int] = []
        for word in words:
            lattice = self._lattices.get(word) or self._lattice(word)
            known, end, backwards = lattice.ways, len(word), list[int]()
            while end:
                cumulative, starts, tokens = known.get(end) or self._ways(lattice, end)
                choice = bisect_right(cumulative, next(draws))
                backwards.append(tokens[choice])
                end = starts[choice]
            ids += reversed(backwards)
        return ids

    def _lattice(self, word: str) -> _Lattice:
        """Forward filtering."""
        likelihoods = [0.0]
        for end in range(1, len(word) + 1):
            logs = [likelihoods[start] + score for start, (_, score) in self._ending(word, end)]
            most = max(logs)
            likelihoods.append(most + math.log(sum([math.exp(each - most) for each in logs])))
        lattice = _Lattice(word, likelihoods, {})
        if len(word) <= _LONG_WORD:
            if len(self._lattices) >= _REMEMBERED:
                self._lattices.clear()
            self._lattices[word] = lattice
        return lattice

    def _ways(self, lattice: _Lattice, end: int) -> _Ways:
        """What backward sampling can do at this position."""
        found, likelihoods = self._ending(lattice.word, end), lattice.likelihoods
        shares = [math.exp(likelihoods[s] + score - likelihoods[end]) for s, (_, score) in found]
        ways = _Ways(
            [*list(accumulate(shares))[:-1], 1.0],
            [start for start, _ in found],
            [token for _, (token, _) in found],
        )
        if len(lattice.word) <= _LONG_WORD:
            lattice.ways[end] = ways
        return ways

    def _ending(self, word: str, end: int) -> list[tuple[int, tuple[int, float]]]:
        """Start, id and score × alpha of each token that ends here."""
        starts = range(max(0, end - self._longest), end)
        return [(start, hit) for start in starts if (hit := self._tokens.get(word[start:end]))]
