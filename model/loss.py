"""Label-smoothed cross entropy (section 5.4), summed over real tokens, and their count."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from heliograph.model.transformer import Transformer


class SmoothedLoss(nn.Module):
    """The model and its loss as one module: what training wraps in DDP and differentiates.

    Raises:
        ValueError: smoothing, the probability spread evenly over the vocabulary, is not in [0, 1).
    """

    def __init__(self, model: Transformer, smoothing: float) -> None:
        super().__init__()
        if not 0.0 <= smoothing < 1.0:
            raise ValueError(f"smoothing must be in [0, 1), not {smoothing}")
        self.model = model
        self.smoothing = smoothing

    def forward(
        self,
        source: Tensor,
        target_in: Tensor,
        target_out: Tensor,
        padded: bool | None = None,
    ) -> tuple[Tensor, Tensor]:
        """source [B, S], target_in [B, T], target_out [B, T] → loss (nats), tokens: scalars.

        `padded` is of the source, as in `functional.visible_tokens`.
        """
        memory = self.model.encode(source, padded)
        hidden = self.model.decode_hidden(target_in, memory, source, padded=padded)
        real = target_out != self.model.config.pad_id
        loss = smoothed_cross_entropy(
            hidden.flatten(0, 1),
            self.model.embedding.weight,
            target_out.flatten(),
            real.flatten(),
            self.smoothing,
        )
        return loss, real.sum()


def smoothed_cross_entropy(
    hidden: Tensor, weight: Tensor, correct: Tensor, real: Tensor, smoothing: float
) -> Tensor:
    """Cross entropy between softmax(hidden weightᵀ) and (1 - ε) · one-hot + ε / V, summed, in nats.

    Args:
        hidden: [N, D].
        weight: [V, D], the output projection.
        correct: [N], ids.
        real: [N], bool; other positions count for nothing.
        smoothing: ε.
    """
    # torch leaves Function.apply without types.
    loss: Tensor = _SmoothedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden, weight, correct, real, smoothing, torch.is_grad_enabled()
    )
    return loss


class _SmoothedCrossEntropy(torch.autograd.Function):
    """The loss and its gradients in one go, a few hundred positions at a time.

    The [N, V] logits are the largest tensor of training by far. Here only a chunk of them exists at
    any time, and in one place it turns from logits into probabilities into its own gradient. The
    backward pass has only a factor left to apply.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        correct: Tensor,
        real: Tensor,
        smoothing: float,
        with_gradient: bool,
    ) -> Tensor:
        device, vocabulary_size = hidden.device.type, weight.size(0)
        autocast = torch.is_autocast_enabled(device)
        product_dtype = torch.get_autocast_dtype(device) if autocast else hidden.dtype
        dtype = torch.promote_types(product_dtype, torch.float32)
        with torch.autocast(device, enabled=False):
            loss = torch.zeros((), dtype=dtype, device=hidden.device)
            hidden_gradient, weight_gradient = torch.empty_like(hidden), torch.zeros_like(weight)
            product_weight = weight.to(product_dtype)
            # 16 MiB of logits fit a CPU's cache; a GPU wants large products.
            rows = max(1, (2**22 if device == "cpu" else 2**27) // vocabulary_size)
            # Memory that is written again and again; fresh memory would cost page faults.
            buffer = hidden.new_empty(
                min(rows, hidden.size(0)), vocabulary_size, dtype=product_dtype
            )
            for start in range(0, hidden.size(0), rows):
                chunk = slice(start, start + rows)
                padding, targets = ~real[chunk, None], correct[chunk, None]
                # Padded rows are zeros from here on and so add nothing to weight's gradient.
                x = hidden[chunk].to(product_dtype).masked_fill(padding, 0.0)
                logits = torch.mm(x, product_weight.T, out=buffer[: x.size(0)]).to(dtype)

                score = (1 - smoothing) * logits.gather(1, targets)
                score += smoothing * logits.mean(dim=1, keepdim=True)
                highest = logits.amax(dim=1, keepdim=True)
                gradient = torch.softmax(logits, dim=1, out=logits)
                # The highest probability is 1 / Σ exp(logit - highest): it never underflows.
                log_normalizer = highest - gradient.amax(dim=1, keepdim=True).log()
                loss += (log_normalizer - score).masked_fill(padding, 0.0).sum()

                if with_gradient:
                    gradient -= smoothing / vocabulary_size
                    gradient.scatter_add_(
                        1, targets, gradient.new_full(targets.shape, smoothing - 1)
                    )
                    gradient = gradient.to(product_dtype)
                    hidden_gradient[chunk] = (gradient @ product_weight).masked_fill_(padding, 0.0)
                    if product_dtype == weight.dtype:
                        weight_gradient.addmm_(gradient.T, x)
                    else:
                        weight_gradient += gradient.T @ x
        if with_gradient:
            ctx.save_for_backward(hidden_gradient, weight_gradient)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        hidden_gradient, weight_gradient = ctx.saved_tensors
        return hidden_gradient * factor, weight_gradient * factor, None, None, None, None
