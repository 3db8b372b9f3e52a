"""CTranslate2: the same search as in torch, on an exported model, several times as fast on a CPU.

Settings mean what they mean in torch, and where CTranslate2 would take them otherwise, torch
translates instead, from the weights beside the export:

- CTranslate2 knows one maximum and minimum length for a batch, and cuts off at the maximum where
  our search makes a translation end. All that a search has finished is asked for: if a sentence's
  shortest and longest lie inside its own limits, no limit was met, and the result is that of our
  search. Otherwise it is searched again by itself, up to its own limit; if what is wanted of it is
  better than anything that was cut off there can become, that is the result. Else torch has it.
- It may make <pad> or <s> part of a translation, ours never. Torch has those sentences, too.
- It scales up what remains when it forbids the repetition of n-grams, leaves a forced prefix out of
  the score, and draws samples that depend on the rest of the batch. All these are torch's.

Else the searches are alike: both extend the `beam` best unfinished hypotheses, finish those that
end among the `beam` best, and are over when `beam` have finished; where ours stops before, nothing
better could have come.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from threading import Lock

import ctranslate2
import torch

from heliograph.model.search import divisors
from heliograph.pipeline.checkpoints.model_folder import TOKENIZER
from heliograph.pipeline.request.decoding import Decoding
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.steps.tokenizer import END, PAD, START, Tokenizer
from heliograph.pipeline.translation.conversion import POSITIONS
from heliograph.pipeline.translation.exports import PRECISIONS, check_export
from heliograph.pipeline.translation.translate import (
    RunsModel,
    Translation,
    Translator,
    as_unicode,
    batches,
)

TOKENS_PER_BATCH = 1024
"""Source tokens that one thread decodes together, padding included; more is slower on a CPU."""


_NO_PENALTY = 1e-9
"""No score of float32 is changed by it. With a penalty of 0 CTranslate2's search is another one: it
goes on until the best living hypothesis ends, where ours, and its own otherwise, is over when
`beam` have finished."""


@dataclass(frozen=True)
class _Limits:
    """Tokens of a sentence's translation, start and end not counted."""

    least: int
    most: int

    def are_kept_inside(self, lengths: Sequence[int]) -> bool:
        """Whether translations of these lengths never came to a limit."""
        return self.least <= min(lengths) and max(lengths) < self.most


class FastTranslator(RunsModel):
    """An exported model and its tokenizer, on the GPU where there is one, else on the CPU, with as
    many threads as torch would use. Threads may share it."""

    def __init__(self, model_folder: str | Path, export: str) -> None:
        """The export named so in `exports.PRECISIONS`.

        Raises:
            RequestError: it is not there or was changed, or this machine cannot compute so.
        """
        self._model_folder = Path(model_folder)
        folder = check_export(self._model_folder, export)
        self.tokenizer = Tokenizer.load(str(self._model_folder / TOKENIZER))
        self._names = self.tokenizer.vocabulary
        self._never = {self._names[PAD], self._names[START]}
        self._ids = {name: number for number, name in enumerate(self._names)}
        self._backend = open_backend(folder, export)
        self._torch_lock = Lock()
        self._torch: Translator | None = None

    def _through_torch(
        self,
        sentences: Sequence[str],
        settings: Decoding,
        prefixes: Sequence[str] | None = None,
    ) -> list[list[Translation]]:
        """What CTranslate2 does otherwise. In float32, as an export may be: a search that both take
        a part in is one search."""
        with self._torch_lock:
            if self._torch is None:
                self._torch = Translator.load(self._model_folder, precision="float32")
            return self._torch.alternatives(sentences, settings, prefixes)

    def alternatives(
        self,
        sentences: Sequence[str],
        settings: Decoding,
        prefixes: Sequence[str] | None = None,
    ) -> list[list[Translation]]:
        if settings.sampling or settings.no_repeat_ngram or any(prefixes or []):
            return self._through_torch(sentences, settings, prefixes)
        ids = self.tokenizer.encode_batch([as_unicode(text) for text in sentences])
        wanted = [n for n, text in enumerate(sentences) if text.strip() and len(ids[n]) < POSITIONS]
        found: dict[int, list[Translation]] = {}
        budget = min(settings.tokens_per_batch, TOKENS_PER_BATCH)
        waiting = [
            (batch, self._submit([ids[n] for n in batch], settings))
            for batch in reversed([*batches(wanted, ids, budget)])  # so the last ones are short
        ]
        limited: list[int] = []
        for batch, results in waiting:
            for number, result in zip(batch, results, strict=True):
                whole, limits = result.result(), _limits(len(ids[number]), settings)
                if self._could_be_ours(whole):
                    if self._ended_inside(whole, limits):
                        found[number] = self._translations(_ranked(whole, settings), settings)
                    elif limits.least == 0 < limits.most < POSITIONS:
                        limited.append(number)
        if not settings.length_offset:
            found |= self._to_their_limits({n: ids[n] for n in limited}, settings)
        left = [n for n, text in enumerate(sentences) if text.strip() and n not in found]
        if left:
            others = self._through_torch([sentences[n] for n in left], settings)
            found |= zip(left, others, strict=True)
        return [found.get(number, []) for number in range(len(sentences))]

    def _to_their_limits(
        self, sentences: dict[int, list[int]], settings: Decoding
    ) -> dict[int, list[Translation]]:
        """The translations of sentences whose search comes to the limit of length, each searched by
        itself up to its own; without those that may have others.

        What is cut off there has lost no probability yet to what our search appends, its end. So
        it, and whatever did not get among the best, comes at most to its score over one token more.
        """
        most = {n: _limits(len(tokens), settings).most for n, tokens in sentences.items()}
        waiting = [(n, self._submit([ids], settings, most[n])) for n, ids in sentences.items()]
        found: dict[int, list[Translation]] = {}
        for number, (result,) in waiting:
            ranked = _ranked(result.result(), settings)
            ended = [pair for pair in ranked if pair[1][-1] == self._names[END]]
            cut = [score for score, names in ranked if names[-1] != self._names[END]]
            bound = max(cut, default=ranked[-1][0])
            bound *= (most[number] / (most[number] + 1)) ** settings.length_penalty
            if (
                self._could_be_ours(result.result())
                and len(ended) >= settings.n_best
                and ended[settings.n_best - 1][0] > bound
            ):
                found[number] = self._translations(ended, settings)
        return found

    def _submit(
        self, batch: list[list[int]], settings: Decoding, most: int | None = None
    ) -> list[ctranslate2.AsyncTranslationResult]:
        """Have a batch of token ids translated by the next thread that is free; to at most so many
        tokens, or so that none that is within its limit is cut off."""
        longest = max(_limits(len(tokens), settings).most for tokens in batch) + 1
        results: list[ctranslate2.AsyncTranslationResult] = self._backend.translate_batch(
            [[self._names[token] for token in tokens] for tokens in batch],
            beam_size=settings.beam,
            num_hypotheses=settings.beam,
            # It knows no offset of the length; with one, `_ranked` has the penalty.
            length_penalty=_NO_PENALTY
            if settings.length_offset
            else max(settings.length_penalty, _NO_PENALTY),
            max_decoding_length=min(most or longest, POSITIONS),
            min_decoding_length=0,
            max_input_length=0,
            # So that it counts for the length penalty, as in our scores, and shows who has ended.
            return_end_token=True,
            return_scores=True,
            asynchronous=True,
        )
        return results

    def _could_be_ours(self, result: ctranslate2.TranslationResult) -> bool:
        """Whether there is nothing in it that our search never makes."""
        return self._never.isdisjoint(chain.from_iterable(result.hypotheses))

    def _ended_inside(self, result: ctranslate2.TranslationResult, limits: _Limits) -> bool:
        """Whether the search never came to a limit.

        What finished in its last step is among the hypotheses, so that longer than all of them none
        ever was.
        """
        hypotheses = result.hypotheses
        if any(names[-1] != self._names[END] for names in hypotheses):
            return False
        return limits.are_kept_inside([len(names) - 1 for names in hypotheses])

    def _translations(
        self, ranked: list[tuple[float, list[str]]], settings: Decoding
    ) -> list[Translation]:
        """The `n_best` best, of scores and tokens, end included."""
        best = ranked[: settings.n_best]
        tokens = [[self._ids[name] for name in names[:-1]] for _, names in best]
        texts = self.tokenizer.decode_batch(tokens)
        return [Translation(text, score) for text, (score, _) in zip(texts, best, strict=True)]


def _ranked(
    result: ctranslate2.TranslationResult, settings: Decoding
) -> list[tuple[float, list[str]]]:
    """Scores and tokens, end included, of all that was found, the best first."""
    found = list(zip(result.scores, result.hypotheses, strict=True))
    if not settings.length_offset:
        return found
    longest = max(len(names) for _, names in found)
    scale = divisors(longest, settings.length_penalty, settings.length_offset).tolist()
    return sorted(
        ((score / scale[len(names)], names) for score, names in found), key=lambda each: -each[0]
    )


def _limits(source_tokens: int, settings: Decoding) -> _Limits:
    return _Limits(
        int(source_tokens * settings.min_length_factor),
        int(source_tokens * settings.max_length_factor) + settings.max_length_extra,
    )


def check_precision(export: str) -> str:
    """The device that an export would run on.

    Raises:
        RequestError: it cannot compute with that precision.
    """
    device = "cuda" if ctranslate2.get_cuda_device_count() else "cpu"
    precision = PRECISIONS[export]
    supported = ctranslate2.get_supported_compute_types(device)
    if precision not in supported:
        others = ", ".join(name for name, needs in PRECISIONS.items() if needs in supported)
        where = "needs a GPU" if device == "cpu" else "is not for this machine's GPU"
        raise RequestError(f"{export!r} computes in {precision}, which {where}; valid: {others}")
    return device


def open_backend(folder: Path, export: str) -> ctranslate2.Translator:
    """CTranslate2's own translator of an export's files.

    Raises:
        RequestError: this machine cannot compute with that precision, or the files are none.
    """
    device = check_precision(export)
    try:
        return ctranslate2.Translator(
            str(folder),
            device=device,
            compute_type=PRECISIONS[export],
            # A batch a thread: matrices this small gain little from being shared out.
            inter_threads=1 if device == "cuda" else torch.get_num_threads(),
            intra_threads=1,
        )
    except (RuntimeError, ValueError) as error:
        raise RequestError(f"{str(folder)!r} holds no usable export: {error}") from error
