"""Steps of 1 and 2 workers on this machine, and what gradients cost them: for scaling.py.

Each worker is a process with one thread, in a gloo group. Ids are random and lengths equal, so that
ranks wait for each other's gradients and not for a longer batch. Compression is tried here only:
on one machine it has to pay for itself in time, and the pipeline has none.
"""

import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel

from heliograph.model import SmoothedLoss, Transformer, TransformerConfig
from heliograph.pipeline.request.recipe import Train
from heliograph.pipeline.steps.batches import MicroBatch
from heliograph.pipeline.training.step import make_optimizer, training_step
from heliograph.pipeline.training.stopwatch import Stopwatch

CONFIG = TransformerConfig(8000, 256, 4, 3, 3, 512)
PAIRS, LENGTH = 64, 16
WARM_UP = 2
BUCKETS_MB = (1, 5, 25, 100)
PHASES_OF_A_STEP = ("forward", "backward", "sync", "update")
Seconds = dict[str, float]
HOOKS = ("float32", "float16", "bfloat16", "powerSGD rank 2")


@dataclass(frozen=True)
class Variant:
    """One way to take a step."""

    name: str
    pairs: int
    """Of each rank."""
    megabytes: int = 25
    """Of a bucket; DDP's default."""
    hook: str = "float32"


ALONE = [Variant("1 worker", PAIRS)]
TOGETHER = [
    Variant("2 workers, weak", PAIRS),
    Variant("2 workers, strong", PAIRS // 2),
    *(Variant(f"buckets of {size} MB", PAIRS // 2, size) for size in BUCKETS_MB),
    *(Variant(hook, PAIRS // 2, hook=hook) for hook in HOOKS),
]


def measure_ranks(steps: int) -> dict[str, Seconds]:
    """Seconds of a step by phase, the median over steps; printed as they are measured."""
    print("MEASURED on this machine: seconds a step, medians")
    found = _measure(1, ALONE, steps) | _measure(2, TOGETHER, steps)
    one = found[ALONE[0].name]["step"]
    for name, seconds in found.items():
        phases = " ".join(f"{phase} {value:.3f}" for phase, value in seconds.items())
        work = (2 if "weak" in name else 1) * one / seconds["step"]
        share = seconds["sync"] / seconds["step"]
        print(f"  {name:18} {phases}  sync {share:.1%}  {work:.2f} x the work of 1 worker")
    return found


def _measure(world_size: int, variants: list[Variant], steps: int) -> dict[str, Seconds]:
    """By variant rank 0's median seconds of a whole step and of its phases."""
    with tempfile.TemporaryDirectory() as folder:
        words = (world_size, folder, variants, steps)
        multiprocessing.spawn(_rank, words, nprocs=world_size)
        found: dict[str, Seconds] = json.loads(Path(folder, "seconds").read_text())
    return found


def _rank(rank: int, world_size: int, folder: str, variants: list[Variant], steps: int) -> None:
    meet = f"file://{folder}/meet"
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=world_size)
    torch.set_num_threads(1)
    found = {variant.name: _steps(variant, world_size, steps) for variant in variants}
    if rank == 0:
        Path(folder, "seconds").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


def _steps(variant: Variant, world_size: int, steps: int) -> Seconds:
    torch.manual_seed(1)
    stopwatch = Stopwatch(torch.device("cpu"))
    model = Transformer(CONFIG).train()
    module = DistributedDataParallel(
        SmoothedLoss(model, 0.1), gradient_as_bucket_view=True, bucket_cap_mb=variant.megabytes
    )
    module.register_comm_hook(None, _timed(variant.hook, stopwatch))
    optimizer = make_optimizer(model, Train(steps=1))
    ids = [[3 + number % 7000 for number in range(LENGTH)] for _ in range(variant.pairs)]
    batch, tokens, rows = MicroBatch.from_lists(ids, ids, ids), variant.pairs * LENGTH, []
    for _ in range(WARM_UP + steps):
        dist.barrier()
        started = time.perf_counter()
        training_step(module, optimizer, [batch], tokens * world_size, 1.0, stopwatch)
        seconds, phases = time.perf_counter() - started, stopwatch.read()
        rows.append({"step": seconds} | {name: phases[name] for name in PHASES_OF_A_STEP})
    return {name: statistics.median(row[name] for row in rows[WARM_UP:]) for name in rows[0]}


def _timed(hook: str, stopwatch: Stopwatch) -> Any:
    """The hook, telling the stopwatch where sync begins, as `training.step.data_parallel` does."""
    state = powerSGD_hook.PowerSGDState(None, matrix_approximation_rank=2, start_powerSGD_iter=2)
    reduce = {
        "float32": lambda bucket: default_hooks.allreduce_hook(dist.group.WORLD, bucket),
        "float16": lambda bucket: default_hooks.fp16_compress_hook(dist.group.WORLD, bucket),
        "bfloat16": lambda bucket: default_hooks.bf16_compress_hook(dist.group.WORLD, bucket),
        "powerSGD rank 2": lambda bucket: powerSGD_hook.powerSGD_hook(state, bucket),
    }[hook]

    def timed(_: Any, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        if bucket.is_last():
            stopwatch.start("sync")
        return reduce(bucket)

    return timed
