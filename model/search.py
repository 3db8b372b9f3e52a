"""Greedy and beam search, batched, with a key-value cache.

Shapes: B sentences still open, W hypotheses of each (1 at the start, then the beam), T tokens of a
hypothesis so far, start token included, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from model.transformer import Transformer


@dataclass(frozen=True)
class Hypothesis:
    """A translation.

    Attributes:
        tokens: ids without start and end.
        score: log-probability in nats, the end token's included, divided by the number of tokens,
            the end token counted, to the power of the length penalty.
    """

    tokens: list[int]
    score: float


def greedy_search(
    model: Transformer, source: Tensor, max_lengths: Tensor, length_penalty: float = 1.0
) -> list[Hypothesis]:
    """The likeliest token at each step: `beam_search` with a beam of 1."""
    return beam_search(model, source, 1, max_lengths, length_penalty)


@torch.inference_mode()
def beam_search(
    model: Transformer, source: Tensor, beam: int, max_lengths: Tensor, length_penalty: float
) -> list[Hypothesis]:
    """The best translation found of each sentence.

    Each step ranks all one-token extensions of a sentence's hypotheses by log-probability. Those
    among the best `beam` that end are finished; the best `beam` that do not end live on. A sentence
    is done when `beam` hypotheses have finished, or when no living one can still win: its score
    cannot exceed its present log-probability / (max_length + 1) ** length_penalty. A sentence that
    is done leaves the batch.

    Args:
        source: [B, S], ids padded on the right.
        beam: at least 1; 1 is greedy search.
        max_lengths: [B], tokens of a translation, start and end not counted; there the end token
            is forced.
        length_penalty: at least 0; 0 favours short translations.

    Returns:
        One hypothesis per sentence, in order, whatever the limits.

    Raises:
        ValueError: an argument is out of range, or the model is in training mode.
    """
    if model.training:
        raise ValueError("the model is in training mode: dropout would change its translations")
    if beam < 1 or length_penalty < 0 or bool((max_lengths < 0).any()):
        raise ValueError(
            "beam must be at least 1, length_penalty and max_lengths at least 0: "
            f"{beam}, {length_penalty}, {max_lengths.tolist()}"
        )
    search = _Search(model, source, beam, max_lengths.to(source.device), length_penalty)
    while search.sentences.numel():
        search.advance()
    return search.results()


class _Search:
    """The hypotheses of the sentences still open, and the best finished one of every sentence."""

    def __init__(
        self,
        model: Transformer,
        source: Tensor,
        beam: int,
        max_lengths: Tensor,
        length_penalty: float,
    ) -> None:
        self.model = model
        self.beam = beam
        self.length_penalty = length_penalty
        self.state = model.start(source)
        batch, device = source.size(0), source.device
        # Of the open sentences, in the same order everywhere.
        self.sentences = torch.arange(batch, device=device)
        self.max_lengths = max_lengths
        self.tokens = torch.full((batch, 1, 1), model.config.start_id, device=device)
        self.log_probabilities = torch.zeros(batch, 1, device=device)
        self.finished = torch.zeros(batch, dtype=torch.int64, device=device)
        # Of all sentences.
        longest = int(max_lengths.max()) if batch else 0
        self.best_scores = torch.full((batch,), -torch.inf, device=device)
        self.best_tokens = torch.zeros(batch, longest, dtype=torch.int64, device=device)
        self.best_lengths = torch.zeros(batch, dtype=torch.int64, device=device)

    def advance(self) -> None:
        """Every hypothesis grows by one token or ends; sentences that are done leave."""
        logits = self.model.step(self.tokens[:, :, -1], self.state).float()
        ending, continuing, next_tokens = self._extensions(logits)
        alive, choice = continuing.flatten(1).topk(min(self.beam, continuing[0].numel()))
        candidates = torch.cat([alive, ending], dim=1)
        threshold = candidates.topk(min(self.beam, candidates.size(1))).values[:, -1:]
        self._finish(ending.masked_fill(ending < threshold, -torch.inf))

        bound = alive[:, 0] / (self.max_lengths + 1) ** self.length_penalty
        done = (self.finished >= self.beam) | (bound <= self.best_scores[self.sentences])
        self._continue((~done).nonzero().squeeze(1), alive, choice, next_tokens)

    def _extensions(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """logits [B, W, V] → log-probabilities: of ending [B, W]; of going on [B, W, N] by the N
        likeliest tokens; and those tokens [B, W, N]."""
        config = self.model.config
        # In place, since these are the largest tensors of search.
        extended = torch.log_softmax(logits, dim=-1, out=logits)
        extended += self.log_probabilities[..., None]
        ending = extended[..., config.end_id].clone()
        extended[..., [config.pad_id, config.start_id, config.end_id]] = -torch.inf
        continuing, next_tokens = extended.topk(min(self.beam, extended.size(-1)))
        at_limit = self.tokens.size(2) - 1 >= self.max_lengths
        return ending, continuing.masked_fill(at_limit[:, None, None], -torch.inf), next_tokens

    def _finish(self, ending: Tensor) -> None:
        """Count the hypotheses that end here, [B, W], -inf where one does not; keep the best."""
        self.finished += ending.isfinite().sum(dim=1)
        log_probability, which = ending.max(dim=1)
        length = self.tokens.size(2)  # The start token stands for the end token.
        score = log_probability / length**self.length_penalty
        better = (score > self.best_scores[self.sentences]).nonzero().squeeze(1)
        sentences = self.sentences[better]
        self.best_scores[sentences] = score[better]
        self.best_tokens[sentences, : length - 1] = self.tokens[better, which[better], 1:]
        self.best_lengths[sentences] = length - 1

    def _continue(
        self, still_open: Tensor, alive: Tensor, choice: Tensor, next_tokens: Tensor
    ) -> None:
        """Keep the open sentences numbered `still_open`, and of each the hypotheses that live on.

        alive [B, W']: their log-probabilities; choice [B, W']: where each is in next_tokens
        [B, W, N], which has a row for each of the hypotheses that they extend.
        """
        if still_open.numel() < self.sentences.numel():
            self.state.keep_sentences(still_open)
            self.sentences = self.sentences[still_open]
            self.max_lengths = self.max_lengths[still_open]
            self.finished = self.finished[still_open]
        width = self.tokens.size(1)
        self.log_probabilities, choice = alive[still_open], choice[still_open]
        rows = still_open[:, None] * width + choice // next_tokens.size(2)
        newest = next_tokens[still_open].flatten(1).gather(1, choice)
        self.tokens = torch.cat([self.tokens.flatten(0, 1)[rows], newest[..., None]], dim=2)
        self.state.keep_hypotheses(rows.flatten())

    def results(self) -> list[Hypothesis]:
        rows = zip(
            self.best_tokens.tolist(),
            self.best_lengths.tolist(),
            self.best_scores.tolist(),
            strict=True,
        )
        return [Hypothesis(tokens[:length], score) for tokens, length, score in rows]
