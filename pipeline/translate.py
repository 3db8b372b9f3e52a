"""Translation: sentences in, sentences out, with the model of one folder."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from model import Transformer, beam_search
from pipeline.model_folder import load_model
from pipeline.recipe import Evaluate
from pipeline.tokenizer import Tokenizer


class Translator:
    """A model and its tokenizer on one device.

    Deterministic: the same sentences, settings and weights give the same strings in any process.
    """

    def __init__(
        self, model: Transformer, tokenizer: Tokenizer, device: str | torch.device = "cpu"
    ) -> None:
        self.model = model.to(device)
        self.tokenizer = tokenizer
        self.device = torch.device(device)

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device | None = None) -> "Translator":
        """The translator of a model folder.

        Args:
            device: None: the GPU where there is one, else the CPU.

        Raises:
            RequestError: `folder` holds no model.
        """
        model, tokenizer = load_model(folder)
        return cls(model, tokenizer, device or ("cuda" if torch.cuda.is_available() else "cpu"))

    def translate(self, sentences: Sequence[str], settings: Evaluate) -> list[str]:
        """One translation per sentence, in their order. Of nothing but white space: nothing."""
        tokens = self._tokenize(sentences)
        wanted = [number for number, sentence in enumerate(sentences) if sentence.strip()]
        found: dict[int, list[int]] = {}
        with _evaluating(self.model):
            for batch in _batches(wanted, tokens, settings.tokens_per_batch):
                found |= zip(batch, self._search([tokens[n] for n in batch], settings), strict=True)
        return self.tokenizer.decode_batch([found.get(n, []) for n in range(len(sentences))])

    def attention(
        self, source: str, target: str
    ) -> tuple[list[str], list[str], NDArray[np.float32]]:
        """Where the model looks while it writes `target`, end token included.

        Returns:
            The source's tokens (S), the target's tokens (T), and weights [L, H, T, S] of L decoder
            layers and H heads: row t is how the target's token t was chosen. Each row sums to 1.
        """
        config = self.model.config
        source_ids, target_ids = self._tokenize([source, target])
        with _evaluating(self.model):
            weights = self.model.cross_attention(
                torch.tensor([[*source_ids, config.end_id]], device=self.device),
                torch.tensor([[config.start_id, *target_ids]], device=self.device),
            )
        pieces = self.tokenizer.pieces
        return (
            pieces([*source_ids, config.end_id]),
            pieces([*target_ids, config.end_id]),
            weights[:, 0].float().cpu().numpy(),
        )

    def _tokenize(self, sentences: Sequence[str]) -> list[list[int]]:
        # Lone surrogates, which undecodable bytes on standard input become, are not Unicode text.
        return self.tokenizer.encode_batch(
            [sentence.encode("utf-8", "replace").decode() for sentence in sentences]
        )

    @torch.inference_mode()
    def _search(self, batch: list[list[int]], settings: Evaluate) -> list[list[int]]:
        """Token ids of the best translation of each of a batch of token ids."""
        config = self.model.config
        source = torch.full((len(batch), len(batch[-1]) + 1), config.pad_id)
        for row, tokens in zip(source, batch, strict=True):
            row[: len(tokens) + 1] = torch.tensor([*tokens, config.end_id])
        max_lengths = torch.tensor(
            [
                int(len(tokens) * settings.max_length_factor) + settings.max_length_extra
                for tokens in batch
            ]
        )
        found = beam_search(
            self.model,
            source.to(self.device),
            settings.beam,
            max_lengths.to(self.device),
            settings.length_penalty,
        )
        return [hypothesis.tokens for hypothesis in found]


@contextmanager
def _evaluating(model: Transformer) -> Iterator[None]:
    """No dropout inside the block; after it the model trains on, if it did before."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _batches(
    numbers: Sequence[int], tokens: Sequence[Sequence[int]], budget: int
) -> Iterator[list[int]]:
    """Numbers of sentences of similar length, shortest first: at most `budget` source tokens a
    batch, padding included; a sentence that is longer alone gets a batch to itself."""
    batch: list[int] = []
    for number in sorted(numbers, key=lambda n: (len(tokens[n]), n)):
        if batch and (len(batch) + 1) * (len(tokens[number]) + 1) > budget:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch
