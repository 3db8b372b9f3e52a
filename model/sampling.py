"""Translations drawn at random, token by token.

Shapes: R drawn translations that have not left the batch, of all sentences, V vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from heliograph.model.constraints import Constraints
from heliograph.model.search import Hypothesis, divisors, looks
from heliograph.model.transformer import Transformer


@torch.inference_mode()
def sample(
    model: Transformer,
    source: Tensor,
    constraints: Constraints,
    seeds: Sequence[int],
    draws: int = 1,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    length_penalty: float = 1.0,
    length_offset: float = 0.0,
    padded: bool | None = None,
) -> list[list[Hypothesis]]:
    """Draw translations of each sentence.

    A sentence's chances come from its own seed alone and are all drawn before the first step, so
    that on a CPU its translations do not depend on its batch-mates, and more draws leave the first
    ones as they are; a GPU rounds by the batch. Constraints, top_k and top_p forbid tokens in this
    order.

    Args:
        source: [B, S], ids padded on the right.
        constraints: of these sentences; used up.
        seeds: one for each sentence.
        draws: translations of each, independent of each other and so perhaps equal.
        temperature: above 0; logits are divided by it.
        top_k: only the likeliest this many tokens are drawn; 0: all.
        top_p: in (0, 1]; only the likeliest tokens that together reach this probability are drawn.
        length_penalty, length_offset: see `search.divisors`; of the scores alone, which are the
            model's at temperature 1.
        padded: whether the source is, as in `functional.visible_tokens`.

    Returns:
        Each sentence's translations, the best score first.

    Raises:
        ValueError: an argument is out of range, or the model is in training mode.
    """
    if model.training:
        raise ValueError("the model is in training mode: dropout would change its translations")
    if draws < 1 or temperature <= 0 or top_k < 0 or not 0 < top_p <= 1:
        raise ValueError(
            "draws must be at least 1, temperature above 0, top_k at least 0, top_p in (0, 1]: "
            f"{draws}, {temperature}, {top_k}, {top_p}"
        )
    scale = divisors(constraints.longest + 1, length_penalty, length_offset)
    drawing = _Drawing(model, source, constraints, seeds, draws, scale, padded)
    for look in looks(constraints.longest, source.device):
        if not drawing.numbers.numel():
            break
        drawing.advance(temperature, top_k, top_p, look)
    return drawing.answers(draws)


def draw(logits: Tensor, chances: Tensor, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Tokens by their probabilities: where a chance falls on the line that they make up.

    Args:
        logits: [R, V], -inf where a token is forbidden, but not in all of a row.
        chances: [R], in [0, 1).
        top_k, top_p: as in `sample`.

    Returns:
        [R].
    """
    tokens = None
    if top_k or top_p < 1:
        logits, tokens = logits.topk(min(top_k or logits.size(-1), logits.size(-1)))
    probabilities = torch.softmax(logits.double(), dim=-1)
    line = probabilities.cumsum(-1)
    possible = probabilities > 0
    if top_p < 1:
        # A token is in while those before it do not reach top_p.
        possible &= line - probabilities < top_p
    last = torch.where(possible, torch.arange(logits.size(-1), device=logits.device), 0).amax(-1)
    ends = line.gather(1, last[:, None])
    place = torch.searchsorted(line, chances[:, None] * ends, right=True)
    place = torch.minimum(place, last[:, None])  # where the product was rounded up to the end
    return (place if tokens is None else tokens.gather(1, place)).squeeze(1)


class _Drawing:
    """The translations that have not left, and those that have."""

    def __init__(
        self,
        model: Transformer,
        source: Tensor,
        constraints: Constraints,
        seeds: Sequence[int],
        draws: int,
        divisors: Tensor,
        padded: bool | None,
    ) -> None:
        self.model = model
        device, count = source.device, source.size(0) * draws
        self.state = model.start(source, padded)
        self.divisors = divisors.to(device)
        # Of all; one without tokens and score has found no way to its end.
        self.found = [Hypothesis([], -torch.inf)] * count
        # Of the translations that have not left, in the same order everywhere.
        self.numbers = torch.arange(count, device=device)
        self.chances = _chances(seeds, constraints.max_lengths.tolist(), draws).to(device)
        of_sentences = torch.arange(source.size(0)).repeat_interleave(draws)
        self.constraints = constraints
        self.constraints.keep(of_sentences)
        self.constraints.to(device)
        self.state.keep_sentences(of_sentences.to(device))
        self.tokens = torch.full((count, 1, 1), model.config.start_id, device=device)
        self.log_probabilities = torch.zeros(count, device=device)
        # Of those among them that are done, and only wait for leave.
        self.done = torch.zeros(count, dtype=torch.bool, device=device)
        self.lengths = torch.zeros(count, dtype=torch.int64, device=device)
        self.scores = torch.full((count,), -torch.inf, device=device)

    def advance(self, temperature: float, top_k: int, top_p: float, look: bool) -> None:
        """Every translation grows by one token or ends; if we `look`, those that are done leave.

        Nothing here waits for a GPU, but for a look, and prefixes.
        """
        config, length = self.model.config, self.tokens.size(2)
        logits = self.model.step(self.tokens[:, :, -1], self.state).float()
        log_probabilities = torch.log_softmax(logits, dim=-1)[:, 0]
        end = logits[..., config.end_id].clone()
        may_end = self.constraints.apply(logits, self.tokens, config)
        logits[..., config.end_id] = end if may_end is None else end.where(may_end, -torch.inf)
        lost = logits[:, 0].amax(-1).isneginf()
        # Something has to be drawn: an end that does not count.
        logits[:, 0, config.end_id].masked_fill_(lost, 0.0)
        newest = draw(logits[:, 0] / temperature, self.chances[:, length - 1], top_k, top_p)
        self.log_probabilities += log_probabilities.gather(1, newest[:, None]).squeeze(1)

        done = self.done | (newest == config.end_id)
        ended = done & ~self.done & ~lost
        self.scores = torch.where(
            ended, self.log_probabilities / self.divisors[length], self.scores
        )
        self.lengths = self.lengths.masked_fill(ended, length - 1)
        self.tokens = torch.cat([self.tokens, newest[:, None, None]], dim=2)
        self.done = done
        if look:
            self._leave()

    def answers(self, draws: int) -> list[list[Hypothesis]]:
        """Those of each sentence, the best score first."""
        groups = (self.found[first : first + draws] for first in range(0, len(self.found), draws))
        return [
            sorted((h for h in group if h.score > -torch.inf), key=lambda h: -h.score)
            for group in groups
        ]

    def _leave(self) -> None:
        leaving = self.done.nonzero().squeeze(1)
        if not leaving.numel():
            return
        columns = (self.numbers, self.tokens[:, 0, 1:], self.lengths, self.scores)
        ended = zip(*(column[leaving].tolist() for column in columns), strict=True)
        for number, tokens, length, score in ended:
            self.found[number] = Hypothesis(tokens[:length], score)
        staying = (~self.done).nonzero().squeeze(1)
        self.numbers, self.chances = self.numbers[staying], self.chances[staying]
        self.tokens, self.done = self.tokens[staying], self.done[staying]
        self.log_probabilities = self.log_probabilities[staying]
        self.lengths, self.scores = self.lengths[staying], self.scores[staying]
        self.state.keep_sentences(staying)
        self.state.keep_hypotheses(staying)
        self.constraints.keep(staying)


def _chances(seeds: Sequence[int], max_lengths: Sequence[int], draws: int) -> Tensor:
    """Random numbers in [0, 1), [sentences · draws, tokens], in double precision; zeros where a
    translation cannot be that long."""
    chances = torch.zeros(len(seeds), draws, max(max_lengths, default=0) + 1, dtype=torch.float64)
    for row, seed, limit in zip(chances, seeds, max_lengths, strict=True):
        generator = torch.Generator().manual_seed(seed)
        row[:, : limit + 1] = torch.rand(draws, limit + 1, dtype=row.dtype, generator=generator)
    return chances.flatten(0, 1)
