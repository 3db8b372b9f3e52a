"""One optimizer step, and what its loss means on any number of workers. Plain torch and DDP.

The loss of a step is the mean over all target tokens of all its micro-batches on all ranks. That
count is known before the step from the step list, so each micro-batch's summed loss is divided by
it and no rank needs to know what the others hold.
"""

import hashlib
import math
import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from heliograph.model import SmoothedLoss, Transformer, TransformerConfig
from heliograph.model.functional import Autocast
from heliograph.pipeline.training.stopwatch import Stopwatch

if TYPE_CHECKING:  # benchmarks/train.py runs where there is nothing but torch
    from heliograph.pipeline.checkpoints.training_state import Meter
    from heliograph.pipeline.request import recipe
    from heliograph.pipeline.steps.batches import MicroBatch


def training_step(
    module: DistributedDataParallel,
    optimizer: torch.optim.Optimizer,
    micro_batches: "Sequence[MicroBatch]",
    target_tokens: int,
    clip_norm: float,
    stopwatch: Stopwatch,
    autocast: Autocast = nullcontext,
) -> tuple[Tensor, Tensor]:
    """Take one optimizer step on this rank's micro-batches; ranks meet in the last one's backward.

    A gradient that is not finite, which all ranks see alike, is not applied. Nothing here waits for
    a GPU: what comes back may be read much later.

    Args:
        module: DDP around a `SmoothedLoss`; its gradients are averaged over the ranks.
        micro_batches: at least one; `empty_micro_batch` where this rank has no share of the step.
        target_tokens: of the whole step, over all ranks.
        clip_norm: the gradient's largest L2 norm; 0 never clips.
        stopwatch: the one that `data_parallel` was given, which tells it where "sync" begins.

    Returns:
        Scalars on the device: this rank's summed loss in nats, and the norm of the step's gradient
        before clipping.
    """
    world_size = torch.distributed.get_world_size()
    total = torch.zeros((), device=next(module.parameters()).device)
    optimizer.zero_grad(set_to_none=True)
    for number, batch in enumerate(micro_batches, start=1):
        with nullcontext() if number == len(micro_batches) else module.no_sync():
            stopwatch.start("forward")
            with autocast():
                loss, _ = module(batch.source, batch.target_in, batch.target_out, batch.padded)
            stopwatch.start("backward")
            # DDP divides by the number of ranks, which the global mean must not.
            (loss * (world_size / target_tokens)).backward()
        total += loss.detach()
    stopwatch.start("update")
    norm = torch.nn.utils.clip_grad_norm_(module.parameters(), clip_norm or math.inf)
    # Fused AdamW looks at this on the device, and then changes neither weights nor moments.
    optimizer.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]
    optimizer.step()
    stopwatch.stop()
    return total, norm


def data_parallel(
    model: Transformer, label_smoothing: float, stopwatch: Stopwatch
) -> DistributedDataParallel:
    """The model's loss, whose gradients DDP averages over the ranks while backward computes."""
    module = DistributedDataParallel(
        SmoothedLoss(model, label_smoothing), gradient_as_bucket_view=True
    )
    module.register_comm_hook(stopwatch, _all_reduce)
    return module


def _all_reduce(
    stopwatch: Stopwatch,
    bucket: torch.distributed.GradBucket,  # type: ignore[name-defined]  # of C++
) -> torch.futures.Future[Tensor]:
    """As DDP does it by itself. With its last bucket backward has computed all: from there on it
    waits."""
    if bucket.is_last():
        stopwatch.start("sync")
    group = torch.distributed.group.WORLD
    assert group is not None
    return allreduce_hook(group, bucket)


def model_config(sizes: "recipe.Model", vocabulary_size: int) -> TransformerConfig:
    """The model's own configuration, from the recipe's sizes and the tokenizer."""
    return TransformerConfig(vocabulary_size=vocabulary_size, **sizes.model_dump())


def make_optimizer(model: torch.nn.Module, plan: "recipe.Train") -> torch.optim.AdamW:
    """AdamW; with no weight decay, as by default, it is the paper's Adam."""
    return torch.optim.AdamW(
        model.parameters(),
        lr=0.0,  # set at each step
        betas=plan.betas,
        eps=plan.epsilon,
        weight_decay=plan.weight_decay,
        fused=True,
    )


def be_deterministic() -> None:
    """Have torch compute the same bits in each run on a GPU, too, for the rest of this process.

    Before anything is computed there: cuBLAS reads the variable when it is first used.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # Nothing reads such memory.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def seed_of(seed: int, step: int, rank: int) -> int:
    """Independent random numbers for each step and rank, and the same ones after a resume."""
    digest = hashlib.sha256(f"{seed}/{step}/{rank}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def over_all_ranks(meter: "Meter", device: torch.device) -> "Meter":
    """Sums over all ranks; times are their mean, and tokens are global already."""
    world_size = torch.distributed.get_world_size()
    sums = torch.tensor(
        [meter.loss, meter.positions, meter.padding, meter.seconds, meter.wait],
        dtype=torch.float64,
        device=device,
    )
    torch.distributed.all_reduce(sums)
    loss, positions, padding, seconds, wait = sums.tolist()
    return replace(
        meter,
        loss=loss,
        positions=int(positions),
        padding=int(padding),
        seconds=seconds / world_size,
        wait=wait / world_size,
    )


def is_about_compiling(error: Exception) -> bool:
    """Whether torch.compile failed; the first step would do so at each start."""
    return isinstance(error, torch._dynamo.exc.TorchDynamoException)


def is_out_of_memory(error: Exception) -> bool:
    """torch has a class for it on GPUs only."""
    on_cpu = "can't allocate memory" in str(error)
    return on_cpu or isinstance(error, torch.OutOfMemoryError | MemoryError)
