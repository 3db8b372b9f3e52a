"""Label-smoothed cross entropy (section 5.4), summed over real tokens, and their count."""

from torch import Tensor, nn

from model.transformer import Transformer


class SmoothedLoss(nn.Module):
    """The model and its loss as one module: what training wraps in DDP and differentiates."""

    def __init__(self, model: Transformer, smoothing: float) -> None:
        super().__init__()
        if not 0.0 <= smoothing < 1.0:
            raise ValueError(f"smoothing must be in [0, 1), not {smoothing}")
        self.model = model
        self.smoothing = smoothing

    def forward(
        self, source: Tensor, target_in: Tensor, target_out: Tensor
    ) -> tuple[Tensor, Tensor]:
        """source [B, S], target_in [B, T], target_out [B, T] → loss (nats), tokens: scalars."""
        hidden = self.model.decode_hidden(target_in, self.model.encode(source), source)
        real = target_out != self.model.config.pad_id
        logits = self.model.project(hidden[real])
        loss = nn.functional.cross_entropy(
            logits.float(), target_out[real], label_smoothing=self.smoothing, reduction="sum"
        )
        return loss, real.sum()
