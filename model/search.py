"""Greedy and beam search, batched, with a key-value cache.

Shapes: B sentences still open, W hypotheses of each (1 at the start, then the beam), T tokens of a
hypothesis so far, start token included, V vocabulary, N translations kept of a sentence.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from heliograph.model.constraints import Constraints
from heliograph.model.functional import likeliest
from heliograph.model.transformer import Transformer

TOKENS_PER_LOOK = 8
"""On a GPU. With more, sentences that are done cost more work; with fewer it waits more often."""


@dataclass(frozen=True)
class Hypothesis:
    """A translation.

    Attributes:
        tokens: ids without start and end.
        score: log-probability in nats, the end token's included, divided as `divisors` says, the
            end token counted.
    """

    tokens: list[int]
    score: float


def greedy_search(
    model: Transformer, source: Tensor, constraints: Constraints, length_penalty: float = 1.0
) -> list[list[Hypothesis]]:
    """The likeliest token at each step: `beam_search` with a beam of 1."""
    return beam_search(model, source, constraints, 1, length_penalty)


@torch.inference_mode()
def beam_search(
    model: Transformer,
    source: Tensor,
    constraints: Constraints,
    beam: int,
    length_penalty: float = 1.0,
    n_best: int = 1,
    length_offset: float = 0.0,
    padded: bool | None = None,
) -> list[list[Hypothesis]]:
    """The best translations found of each sentence.

    Each step ranks all one-token extensions of a sentence's hypotheses by log-probability. Those
    among the best `beam` that end are finished; the best `beam` that do not end live on. A
    sentence's search is over when `beam` hypotheses have finished or none lives, and its answer
    is the `n_best` best of the finished ones by score.

    It stops before that when no living hypothesis can still enter the answer, which is when none
    has a log-probability L with L / divisor(max_length + 1) above the n-th best score. Proof: let
    it grow into a translation of t tokens, end included, and log-probability L'. No token's
    log-probability is above 0, and constraints forbid tokens without scaling up the others, so L'
    <= L <= 0. As t <= max_length + 1 and divisors do not fall with the length, L' / divisor(t) <= L
    / divisor(max_length + 1). That holds as computed, too: rounding keeps order, both quotients
    take their divisors from one table, and see `_extensions`. An equal score does not displace an
    earlier one, and what finishes without entering the answer only brings the end nearer.

    A sentence that is done leaves the batch: see `looks`.

    Args:
        source: [B, S], ids padded on the right.
        constraints: of these sentences; used up. At its maximum length a translation is made to
            end, and the end token's log-probability counts.
        beam: at least 1; 1 is greedy search.
        length_penalty, length_offset: at least 0, see `divisors`; a penalty of 0 favours short
            translations.
        n_best: at most `beam`.
        padded: whether the source is, as in `functional.visible_tokens`.

    Returns:
        Each sentence's translations, the best first; fewer than `n_best` only where there are no
        more, or where the search was over before.

    Raises:
        ValueError: an argument is out of range, or the model is in training mode.
    """
    if model.training:
        raise ValueError("the model is in training mode: dropout would change its translations")
    if min(length_penalty, length_offset) < 0 or not 1 <= n_best <= beam:
        raise ValueError(
            "beam must be at least 1, length_penalty and length_offset at least 0, n_best from 1 "
            f"to beam: {beam}, {length_penalty}, {length_offset}, {n_best}"
        )
    scale = divisors(constraints.longest + 1, length_penalty, length_offset)
    search = _Search(model, source, constraints, beam, scale, n_best, padded)
    for look in looks(constraints.longest, source.device):
        if not search.sentences.numel():
            break
        search.advance(look)
    return search.answers


def looks(longest: int, device: torch.device) -> Iterator[bool]:
    """For each token that translations of up to `longest` may take, their end included: whether who
    is done leaves the batch after it. After the last of them all do."""
    every = tokens_per_look(device)
    for taken in range(1, longest + 2):
        yield taken % every == 0 or taken > longest


def tokens_per_look(device: torch.device) -> int:
    """To see who is done, the host has to wait for a GPU, which then has nothing to do. On a CPU a
    look costs nothing."""
    return 1 if device.type == "cpu" else TOKENS_PER_LOOK


def divisors(longest: int, length_penalty: float, length_offset: float = 0.0) -> Tensor:
    """By what log-probabilities become scores, by tokens, end included: [longest + 1].

    ((offset + tokens) / (offset + 1)) ** penalty: with an offset of 0 the length to that power,
    with 5 the length penalty of Wu et al. (2016), equation 14, which section 6.1 of the paper uses.
    """
    tokens = torch.arange(longest + 1, dtype=torch.float64)
    return ((length_offset + tokens) / (length_offset + 1)).pow(length_penalty).float()


class _Search:
    """The hypotheses of the sentences still open, the best finished ones of these, and the answers
    of those that have left."""

    def __init__(
        self,
        model: Transformer,
        source: Tensor,
        constraints: Constraints,
        beam: int,
        divisors: Tensor,
        n_best: int,
        padded: bool | None,
    ) -> None:
        self.model = model
        self.beam = beam
        self.state = model.start(source, padded)
        batch, device = source.size(0), source.device
        longest = divisors.numel() - 2
        self.divisors = divisors.to(device)
        self.answers: list[list[Hypothesis]] = [[]] * batch
        # Of the open sentences, in the same order everywhere.
        self.sentences = torch.arange(batch, device=device)
        self.constraints = constraints
        self.constraints.to(device)
        self.tokens = torch.full((batch, 1, 1), model.config.start_id, device=device)
        self.log_probabilities = torch.zeros(batch, 1, device=device)
        self.finished = torch.zeros(batch, dtype=torch.int64, device=device)
        # Each row is sorted, the best first.
        self.best_scores = torch.full((batch, n_best), -torch.inf, device=device)
        self.best_lengths = torch.zeros(batch, n_best, dtype=torch.int64, device=device)
        self.best_tokens = torch.zeros(batch, n_best, longest, dtype=torch.int64, device=device)

    def advance(self, look: bool) -> None:
        """Every hypothesis grows by one token or ends; if we `look`, sentences that are done leave.

        Nothing here waits for a GPU, but for a look, and prefixes.
        """
        logits = self.model.step(self.tokens[:, :, -1], self.state).float()
        ending, continuing, next_tokens = self._extensions(logits)
        alive, choice = continuing.flatten(1).topk(min(self.beam, continuing[0].numel()))
        candidates = torch.cat([alive, ending], dim=1)
        threshold = candidates.topk(min(self.beam, candidates.size(1))).values[:, -1:]
        self._finish(ending.masked_fill(ending < threshold, -torch.inf))

        bound = alive[:, 0] / self.divisors[self.constraints.max_lengths + 1]
        done = (self.finished >= self.beam) | (bound <= self.best_scores[:, -1])
        staying = None
        if look:
            staying = self._leave(done)
        else:
            # Nothing comes of a hypothesis without probability: what is done stays done, as it is.
            alive = alive.masked_fill(done[:, None], -torch.inf)
        self._continue(staying, alive, choice, next_tokens)

    def _extensions(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """logits [B, W, V] → log-probabilities: of ending [B, W]; of going on [B, W, N] by the N
        likeliest tokens; and those tokens [B, W, N].

        None is above that of the hypothesis before, also as computed: the softmax subtracts the
        largest logit, and then the logarithm of a sum that is at least 1.
        """
        config = self.model.config
        # In place, since these are the largest tensors of search.
        newest = torch.log_softmax(logits, dim=-1, out=logits)
        ending = newest[..., config.end_id] + self.log_probabilities
        may_end = self.constraints.apply(newest, self.tokens, config)
        if may_end is not None:
            ending = ending.masked_fill(~may_end, -torch.inf)
        continuing, next_tokens = likeliest(newest, min(self.beam, newest.size(-1)))
        return ending, continuing + self.log_probabilities[..., None], next_tokens

    def _finish(self, ending: Tensor) -> None:
        """Count the hypotheses that end here, [B, W], -inf where one does not; keep the best."""
        self.finished += ending.isfinite().sum(dim=1)
        # In the number of tokens the start token stands for the end token.
        scores = ending / self.divisors[self.tokens.size(2)]
        # A stable sort: of equal scores, the earlier stays in front.
        ranked, order = torch.cat([self.best_scores, scores], dim=1).sort(
            dim=1, descending=True, stable=True
        )
        n_best = self.best_scores.size(1)
        self.best_scores, order = ranked[:, :n_best], order[:, :n_best]
        # The start token is not part of a translation.
        length = self.tokens.size(2) - 1
        lengths = functional.pad(self.best_lengths, (0, scores.size(1)), value=length)
        self.best_lengths = lengths.gather(1, order)
        best_tokens = self.best_tokens[:, :, :length]  # the earlier ones are shorter
        tokens = torch.cat([best_tokens, self.tokens[:, :, 1:]], dim=1)
        best_tokens.copy_(tokens.gather(1, order[..., None].expand(-1, -1, length)))

    def _leave(self, done: Tensor) -> Tensor | None:
        """Sentences that are done leave with their answers. Which of the open ones stay, by their
        numbers among these; None: all."""
        leaving = done.nonzero().squeeze(1)
        if not leaving.numel():
            return None
        best = zip(
            self.sentences[leaving].tolist(),
            self.best_tokens[leaving].tolist(),
            self.best_lengths[leaving].tolist(),
            self.best_scores[leaving].tolist(),
            strict=True,
        )
        for number, *columns in best:
            self.answers[number] = [
                Hypothesis(tokens[:length], score)
                for tokens, length, score in zip(*columns, strict=True)
                if score > -torch.inf
            ]
        staying = (~done).nonzero().squeeze(1)
        self.state.keep_sentences(staying)
        self.constraints.keep(staying)
        self.sentences, self.finished = self.sentences[staying], self.finished[staying]
        self.best_scores, self.best_lengths = self.best_scores[staying], self.best_lengths[staying]
        self.best_tokens = self.best_tokens[staying]
        return staying

    def _continue(
        self, staying: Tensor | None, alive: Tensor, choice: Tensor, next_tokens: Tensor
    ) -> None:
        """Of the sentences that are `staying`, keep the hypotheses that live on.

        alive [B, W']: their log-probabilities; choice [B, W']: where each is in next_tokens
        [B, W, N], which has a row for each of the hypotheses that they extend.
        """
        newest = next_tokens.flatten(1).gather(1, choice)
        past, width = self.tokens, self.tokens.size(1)
        # With a beam of 1 each extends itself, and nothing of the past need be copied.
        if staying is not None or self.beam > 1:
            first = width * torch.arange(past.size(0), device=past.device)
            rows = first[:, None] + choice // next_tokens.size(2)
            if staying is not None:
                rows, alive, newest = rows[staying], alive[staying], newest[staying]
            past = past.flatten(0, 1)[rows]
            self.state.keep_hypotheses(rows.flatten())
        self.log_probabilities = alive
        self.tokens = torch.cat([past, newest[..., None]], dim=2)
