"""Greedy and beam search, batched, with a key-value cache.

Shapes: B sentences still open, W hypotheses of each (1 at the start, then the beam), T tokens of a
hypothesis so far, start token included, V vocabulary, N translations kept of a sentence.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from heliograph.model.constraints import Constraints
from heliograph.model.functional import likeliest
from heliograph.model.transformer import Transformer


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

    A sentence that is done leaves the batch.

    Args:
        source: [B, S], ids padded on the right.
        constraints: of these sentences; used up. At its maximum length a translation is made to
            end, and the end token's log-probability counts.
        beam: at least 1; 1 is greedy search.
        length_penalty, length_offset: at least 0, see `divisors`; a penalty of 0 favours short
            translations.
        n_best: at most `beam`.

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
    longest = int(constraints.max_lengths.max()) if source.size(0) else 0
    scale = divisors(longest + 1, length_penalty, length_offset)
    search = _Search(model, source, constraints, beam, scale, n_best)
    while search.sentences.numel():
        search.advance()
    return search.answers()


def divisors(longest: int, length_penalty: float, length_offset: float = 0.0) -> Tensor:
    """By what log-probabilities become scores, by tokens, end included: [longest + 1].

    ((offset + tokens) / (offset + 1)) ** penalty: with an offset of 0 the length to that power,
    with 5 the length penalty of Wu et al. (2016), equation 14, which section 6.1 of the paper uses.
    """
    tokens = torch.arange(longest + 1, dtype=torch.float64)
    return ((length_offset + tokens) / (length_offset + 1)).pow(length_penalty).float()


class _Search:
    """The hypotheses of the sentences still open, and the best finished ones of every sentence."""

    def __init__(
        self,
        model: Transformer,
        source: Tensor,
        constraints: Constraints,
        beam: int,
        divisors: Tensor,
        n_best: int,
    ) -> None:
        self.model = model
        self.beam = beam
        self.state = model.start(source)
        batch, device = source.size(0), source.device
        # Of the open sentences, in the same order everywhere.
        self.sentences = torch.arange(batch, device=device)
        self.constraints = constraints
        self.tokens = torch.full((batch, 1, 1), model.config.start_id, device=device)
        self.log_probabilities = torch.zeros(batch, 1, device=device)
        self.finished = torch.zeros(batch, dtype=torch.int64, device=device)
        # Of all sentences; each row is sorted, the best first.
        longest = divisors.numel() - 2
        self.divisors = divisors.to(device)
        self.best_scores = torch.full((batch, n_best), -torch.inf, device=device)
        self.best_lengths = torch.zeros(batch, n_best, dtype=torch.int64, device=device)
        self.best_tokens = torch.zeros(batch, n_best, longest, dtype=torch.int64, device=device)

    def advance(self) -> None:
        """Every hypothesis grows by one token or ends; sentences that are done leave."""
        logits = self.model.step(self.tokens[:, :, -1], self.state).float()
        ending, continuing, next_tokens = self._extensions(logits)
        alive, choice = continuing.flatten(1).topk(min(self.beam, continuing[0].numel()))
        candidates = torch.cat([alive, ending], dim=1)
        threshold = candidates.topk(min(self.beam, candidates.size(1))).values[:, -1:]
        self._finish(ending.masked_fill(ending < threshold, -torch.inf))

        bound = alive[:, 0] / self.divisors[self.constraints.max_lengths + 1]
        last = self.best_scores[self.sentences, -1]
        done = (self.finished >= self.beam) | (bound <= last)
        self._continue((~done).nonzero().squeeze(1), alive, choice, next_tokens)

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
        better = scores.amax(dim=1) > self.best_scores[self.sentences, -1]
        rows = better.nonzero().squeeze(1)
        if rows.numel():
            self._rank(rows, scores[rows])

    def _rank(self, rows: Tensor, scores: Tensor) -> None:
        """Merge what has these scores [R, W], of the open sentences numbered `rows` [R], into the
        best ones of their sentences."""
        sentences, n_best = self.sentences[rows], self.best_scores.size(1)
        # A stable sort: of equal scores, the earlier stays in front.
        ranked, order = torch.cat([self.best_scores[sentences], scores], dim=1).sort(
            dim=1, descending=True, stable=True
        )
        order = order[:, :n_best]
        # The start token is not part of a translation.
        length = self.tokens.size(2) - 1
        tokens = functional.pad(self.tokens[rows, :, 1:], (0, self.best_tokens.size(2) - length))
        tokens = torch.cat([self.best_tokens[sentences], tokens], dim=1)
        lengths = functional.pad(self.best_lengths[sentences], (0, scores.size(1)), value=length)
        which = torch.arange(rows.numel(), device=rows.device)[:, None]
        self.best_scores[sentences] = ranked[:, :n_best]
        self.best_tokens[sentences] = tokens[which, order]
        self.best_lengths[sentences] = lengths.gather(1, order)

    def _continue(
        self, still_open: Tensor, alive: Tensor, choice: Tensor, next_tokens: Tensor
    ) -> None:
        """Keep the open sentences numbered `still_open`, and of each the hypotheses that live on.

        alive [B, W']: their log-probabilities; choice [B, W']: where each is in next_tokens
        [B, W, N], which has a row for each of the hypotheses that they extend.
        """
        if still_open.numel() < self.sentences.numel():
            self.state.keep_sentences(still_open)
            self.constraints.keep(still_open)
            self.sentences = self.sentences[still_open]
            self.finished = self.finished[still_open]
        width = self.tokens.size(1)
        self.log_probabilities, choice = alive[still_open], choice[still_open]
        rows = still_open[:, None] * width + choice // next_tokens.size(2)
        newest = next_tokens[still_open].flatten(1).gather(1, choice)
        self.tokens = torch.cat([self.tokens.flatten(0, 1)[rows], newest[..., None]], dim=2)
        self.state.keep_hypotheses(rows.flatten())

    def answers(self) -> list[list[Hypothesis]]:
        rows = zip(
            self.best_tokens.tolist(),
            self.best_lengths.tolist(),
            self.best_scores.tolist(),
            strict=True,
        )
        return [
            [
                Hypothesis(tokens[:length], value)
                for tokens, length, value in zip(*row, strict=True)
                if value > -torch.inf
            ]
            for row in rows
        ]
