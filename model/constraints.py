"""What search and sampling have to keep to: lengths, no repetitions, a given beginning.

Shapes: B sentences still open, W hypotheses of each, T tokens of a hypothesis so far, start token
included, V vocabulary.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from heliograph.model.config import TransformerConfig


class Prefix(Protocol):
    """What a translation has to begin with."""

    def allowed(self, tokens: Sequence[int]) -> Sequence[int] | None:
        """The tokens that may follow these, start token not included; None: any, and the end."""


class Constraints:
    """The limits of every sentence of a batch; those of sentences that are done can be dropped.

    Where only lengths are limited, or repetitions forbidden, `apply` never waits for a GPU. To
    prefixes it has to show the tokens.

    Attributes:
        max_lengths: [B], tokens of a translation, start and end not counted; there it has to end.
        longest: the largest of them at the start.
    """

    def __init__(
        self,
        max_lengths: Tensor,
        min_lengths: Tensor | None = None,
        no_repeat_ngram: int = 0,
        prefixes: Sequence[Prefix | None] | None = None,
    ) -> None:
        """
        Args:
            max_lengths: [B], at least 0; on the CPU, where looking at them takes no time.
            min_lengths: [B], likewise; where it is above the maximum, the maximum holds.
            no_repeat_ngram: no sequence of this many tokens comes twice in a translation; 0: any
                may. A hypothesis with nothing else to go on with ends, however short it is.
            prefixes: one for each sentence. Prefixes may repeat themselves. A sentence whose
                maximum leaves no room for its prefix has no translation.

        Raises:
            ValueError: a length or no_repeat_ngram is negative, or the lists differ in length.
        """
        if bool((max_lengths < 0).any()):
            raise ValueError(f"max_lengths must be at least 0: {max_lengths.tolist()}")
        if no_repeat_ngram < 0:
            raise ValueError(f"no_repeat_ngram must be at least 0, not {no_repeat_ngram}")
        if prefixes is not None and len(prefixes) != max_lengths.numel():
            raise ValueError(f"{len(prefixes)} prefixes for {max_lengths.numel()} sentences")
        self.max_lengths = max_lengths
        self.longest: int = max(max_lengths.tolist(), default=0)
        self.no_repeat_ngram = no_repeat_ngram
        self._min_lengths = min_lengths
        self._prefixes = None if prefixes is None else list(prefixes)
        self._note_lengths()

    def to(self, device: torch.device) -> None:
        """Move to where the logits are."""
        self.max_lengths = self.max_lengths.to(device)
        if self._min_lengths is not None:
            self._min_lengths = self._min_lengths.to(device)

    def keep(self, sentences: Tensor) -> None:
        """The sentences numbered so among the B stay."""
        self.max_lengths = self.max_lengths[sentences]
        if self._min_lengths is not None:
            self._min_lengths = self._min_lengths[sentences]
        if self._prefixes is not None:
            self._prefixes = [self._prefixes[number] for number in sentences.tolist()]
        self._note_lengths()

    def _note_lengths(self) -> None:
        """The lengths at which `apply` has something to do, so that it need not look each time."""
        self._first_limit: int = min(self.max_lengths.tolist(), default=0)
        least = None if self._min_lengths is None else self._min_lengths.tolist()
        self._last_minimum: int = max(least or [], default=0)

    def apply(self, logits: Tensor, tokens: Tensor, config: TransformerConfig) -> Tensor | None:
        """Make forbidden next tokens impossible: logits [B, W, V] become -inf there, in place.

        The special tokens are always forbidden: that a hypothesis ends is not a token like others.

        Args:
            tokens: [B, W, T].

        Returns:
            Which hypotheses may end, bool [B, W]; None: all of them.
        """
        for token in (config.pad_id, config.start_id, config.end_id):
            logits[..., token] = -torch.inf
        length = tokens.size(2) - 1
        unfinished = self._apply_prefixes(logits, tokens)
        if self.no_repeat_ngram:
            self._forbid_repetitions(logits, tokens, unfinished, config.pad_id)
        if length >= self._first_limit:
            logits.masked_fill_((length >= self.max_lengths)[:, None, None], -torch.inf)
        may_end = None if unfinished is None else ~unfinished
        if self._min_lengths is not None and length < self._last_minimum:
            long_enough = (length >= self._min_lengths)[:, None] | logits.amax(-1).isneginf()
            may_end = long_enough if may_end is None else long_enough & may_end
        return may_end

    def _apply_prefixes(self, logits: Tensor, tokens: Tensor) -> Tensor | None:
        """Forbid what no prefix allows; which hypotheses [B, W] are still inside theirs."""
        if self._prefixes is None or not any(self._prefixes):
            return None
        unfinished = torch.zeros(tokens.shape[:2], dtype=torch.bool)
        for number, prefix in enumerate(self._prefixes):
            if prefix is None:
                continue
            for which, hypothesis in enumerate(tokens[number, :, 1:].tolist()):
                allowed = prefix.allowed(hypothesis)
                if allowed is not None:
                    unfinished[number, which] = True
                    row = logits[number, which]
                    index = torch.tensor(allowed, dtype=torch.int64, device=row.device)
                    kept = row[index]
                    row.fill_(-torch.inf)[index] = kept
            if not unfinished[number].any():
                self._prefixes[number] = None
        return unfinished.to(logits.device)

    def _forbid_repetitions(
        self, logits: Tensor, tokens: Tensor, exempt: Tensor | None, pad_id: int
    ) -> None:
        """Forbid each token that followed the last n - 1 tokens before."""
        n = self.no_repeat_ngram
        words = tokens[..., 1:]
        if words.size(2) < n:
            return
        ngrams = words.unfold(2, n, 1)
        context = words[..., None, words.size(2) - n + 1 :]
        repeats = (ngrams[..., :-1] == context).all(-1)
        if exempt is not None:
            repeats &= ~exempt[..., None]
        # Padding is forbidden already, and stands for "none" here.
        forbidden = torch.where(repeats, ngrams[..., -1], pad_id)
        logits.scatter_(-1, forbidden, -torch.inf)
