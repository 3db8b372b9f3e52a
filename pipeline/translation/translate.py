"""Translation: sentences in, sentences out, with the model of one folder."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from heliograph.model import (
    Constraints,
    Hypothesis,
    Transformer,
    autocast_for,
    beam_search,
    sample,
)
from heliograph.pipeline.checkpoints.model_folder import RECIPE, load_model
from heliograph.pipeline.request.decoding import Decoding, Sampling, Search
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.request.recipe_file import read_precision
from heliograph.pipeline.steps.tokenizer import Tokenizer
from heliograph.pipeline.translation.prefix import TextPrefix, TokenBytes

PADDED_TO = 8
"""Sources are padded to a multiple of this length. More wastes work on padding; less makes batches
small where few sentences come at a time."""


@dataclass(frozen=True)
class Translation:
    """One of a sentence's translations.

    Attributes:
        score: log-probability in nats / tokens ** length penalty, the end token counted.
    """

    text: str
    score: float


class RunsModel(ABC):
    """What every engine offers."""

    def translate(self, sentences: Sequence[str], settings: Search) -> list[str]:
        """One translation per sentence, in their order. Of nothing but white space: nothing."""
        found = self.alternatives(sentences, Decoding.like(settings))
        return [translations[0].text if translations else "" for translations in found]

    @abstractmethod
    def alternatives(
        self,
        sentences: Sequence[str],
        settings: Decoding,
        prefixes: Sequence[str] | None = None,
    ) -> list[list[Translation]]:
        """The `settings.n_best` best translations of each sentence, the best first; none of nothing
        but white space.

        Args:
            prefixes: what each translation has to begin with, "" being nothing; compared in the
                form that the tokenizer normalises text to. A prefix may be longer than a
                translation otherwise may, and `max_length_extra` tokens may always follow it.
        """


class Translator(RunsModel):
    """A model and its tokenizer on one device.

    Deterministic on a CPU: the same sentences, settings and weights give the same strings in any
    process and any batch. A GPU rounds by the batch and by its kind, and computes in bfloat16 where
    it can and training did.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        device: str | torch.device = "cpu",
        precision: str = "auto",
    ) -> None:
        """`precision` as in `autocast_for`."""
        self.model = model.to(device)
        self.tokenizer = tokenizer
        self.device = torch.device(device)
        self._autocast = autocast_for(precision, self.device)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        device: str | torch.device | None = None,
        precision: str | None = None,
    ) -> "Translator":
        """The translator of a model folder.

        Args:
            device: None: the GPU where there is one, else the CPU.
            precision: as in `autocast_for`. None: as the model was trained.

        Raises:
            RequestError: `folder` holds no model.
        """
        model, tokenizer = load_model(folder)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        return cls(model, tokenizer, device, precision or read_precision(Path(folder) / RECIPE))

    def alternatives(
        self,
        sentences: Sequence[str],
        settings: Decoding,
        prefixes: Sequence[str] | None = None,
    ) -> list[list[Translation]]:
        assert prefixes is None or len(prefixes) == len(sentences)
        tokens = self._tokenize(sentences)
        begin = [self._prefix(prefix) for prefix in prefixes or [""] * len(sentences)]
        wanted = [number for number, sentence in enumerate(sentences) if sentence.strip()]
        found: list[list[Hypothesis]] = [[] for _ in sentences]
        with _evaluating(self.model), self._autocast():
            for batch in batches(wanted, tokens, settings.tokens_per_batch):
                answers = self._search(
                    [tokens[n] for n in batch], [begin[n] for n in batch], settings
                )
                for number, answer in zip(batch, answers, strict=True):
                    found[number] = answer
        texts = iter(self.tokenizer.decode_batch([h.tokens for each in found for h in each]))
        return [[Translation(next(texts), h.score) for h in each] for each in found]

    def attention(
        self, source: str, target: str, first: int | None = None
    ) -> tuple[list[str], list[str], NDArray[np.float32]]:
        """Where the model looks while it writes `target`, end token included.

        Args:
            first: only of so many tokens of either side, the first ones. The model reads the whole
                source all the same, and no token of the target depends on a later one.

        Returns:
            The source's tokens (S), the target's tokens (T), and weights [L, H, T, S] of L decoder
            layers and H heads: row t is how the target's token t was chosen. Each row of a whole
            source sums to 1.
        """
        config = self.model.config
        source_ids, target_ids = self._tokenize([source, target])
        with _evaluating(self.model), self._autocast():
            weights = self.model.cross_attention(
                torch.tensor([[*source_ids, config.end_id]], device=self.device),
                torch.tensor([[config.start_id, *target_ids][:first]], device=self.device),
            )
        pieces = self.tokenizer.pieces
        return (
            pieces([*source_ids, config.end_id][:first]),
            pieces([*target_ids, config.end_id][:first]),
            weights[:, 0, ..., :first].float().cpu().numpy(),
        )

    def _tokenize(self, sentences: Sequence[str]) -> list[list[int]]:
        return self.tokenizer.encode_batch([as_unicode(sentence) for sentence in sentences])

    def _prefix(self, text: str) -> TextPrefix | None:
        return TextPrefix(as_unicode(text), self.tokenizer, self._token_bytes) if text else None

    @cached_property
    def _token_bytes(self) -> TokenBytes:
        return TokenBytes(self.tokenizer)

    def _search(
        self, batch: list[list[int]], prefixes: list[TextPrefix | None], settings: Decoding
    ) -> list[list[Hypothesis]]:
        """The translations of a batch of token ids, the longest of which is the last."""
        config = self.model.config
        source = torch.full((len(batch), _padded(len(batch[-1]))), config.pad_id)
        for row, tokens in zip(source, batch, strict=True):
            row[: len(tokens) + 1] = torch.tensor([*tokens, config.end_id])
        # Known here; a GPU would have to be waited for.
        padded = any(len(tokens) + 1 < source.size(1) for tokens in batch)
        source = source.to(self.device)
        constraints = self._constraints([len(tokens) for tokens in batch], prefixes, settings)
        scoring = {
            "length_penalty": settings.length_penalty, "length_offset": settings.length_offset
        }  # fmt: skip
        if settings.sampling is None:
            return beam_search(
                self.model,
                source,
                constraints,
                settings.beam,
                n_best=settings.n_best,
                padded=padded,
                **scoring,
            )
        chosen = settings.sampling
        return sample(
            self.model,
            source,
            constraints,
            seeds=[_seed(chosen, tokens) for tokens in batch],
            draws=settings.n_best,
            temperature=chosen.temperature,
            top_k=chosen.top_k,
            top_p=chosen.top_p,
            padded=padded,
            **scoring,
        )

    @staticmethod
    def _constraints(
        lengths: list[int], prefixes: list[TextPrefix | None], settings: Search
    ) -> Constraints:
        """Of sources of these lengths, in tokens."""
        factor, extra = settings.max_length_factor, settings.max_length_extra
        most = [
            max(int(length * factor), prefix.longest if prefix else 0) + extra
            for length, prefix in zip(lengths, prefixes, strict=True)
        ]
        least = [int(length * settings.min_length_factor) for length in lengths]
        return Constraints(
            torch.tensor(most),
            torch.tensor(least) if any(least) else None,
            settings.no_repeat_ngram,
            prefixes if any(prefixes) else None,
        )


def check_lengths(sentences: Sequence[str], max_characters: int) -> None:
    """Raises RequestError for a sentence that is longer: its translation could take all memory, and
    with it what else the process does (issue 17, point 8)."""
    for number, sentence in enumerate(sentences):
        if len(sentence) > max_characters:
            raise RequestError(
                f"sentence {number} has {len(sentence):,} characters, and at most "
                f"{max_characters:,} are translated, as many as a pair had in training"
            )


def as_unicode(text: str) -> str:
    """Lone surrogates, which undecodable bytes on standard input become, are not Unicode text."""
    return text.encode("utf-8", "replace").decode()


def _seed(sampling: Sampling, tokens: list[int]) -> int:
    """Of a sentence's own, so that its batch-mates do not matter."""
    key = json.dumps([sampling.seed, tokens]).encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big", signed=True)


@contextmanager
def _evaluating(model: Transformer) -> Iterator[None]:
    """No dropout inside the block; after it the model trains on, if it did before."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def batches(
    numbers: Sequence[int], tokens: Sequence[Sequence[int]], budget: int
) -> Iterator[list[int]]:
    """Numbers of sentences that are padded to the same length, shortest first: at most `budget`
    source tokens a batch, padding included; a sentence that is longer alone gets a batch to itself.

    As padding depends on the sentence alone, and rows of a batch do not mix (`model.functional`),
    on a CPU nothing about a translation depends on its batch-mates, not even rounding.
    """
    batch: list[int] = []
    for number in sorted(numbers, key=lambda n: (len(tokens[n]), n)):
        length = _padded(len(tokens[number]))
        if batch and (
            length > _padded(len(tokens[batch[0]])) or (len(batch) + 1) * length > budget
        ):
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def _padded(tokens: int) -> int:
    """The length that a source of so many tokens, and its end token, is padded to."""
    return -(-(tokens + 1) // PADDED_TO) * PADDED_TO
