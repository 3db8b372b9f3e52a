"""Training speed: Heliograph's step beside a plain loop over torch.nn.Transformer.

    python benchmarks/train.py                     # two threads of a CPU, float32
    python benchmarks/train.py --device cuda       # bfloat16 autocast
    python benchmarks/train.py --compile           # and Heliograph's step with train.compile

Same sizes, same batches, same cores, alternating batch by batch in one process, so that whatever
else the machine does hits both alike. A step is forward, backward, clipping and the optimizer's
step. Ids are random, lengths are distributed like Multi30k's captions in 8,000 BPE tokens, sorted
and cut to a token budget as the pipeline does it, and lie in the CPU's memory before each step.
Heliograph's step is the pipeline's own: DDP around the loss, random numbers of the step's own, the
bounds on the gradient, the clock of its phases. Needs nothing but torch.

Two plain loops are timed: torch.nn.Transformer as it comes, which also drops out inside its
feed-forward networks, where the paper does not; and one without that, so that nothing of the
ratio is owed to work that Heliograph leaves out.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

if __package__ in (None, ""):  # Run as a file: the repository's root is not on the path.
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from benchmarks.plain import (
    CLIP_NORM,
    LEARNING_RATE,
    SMOOTHING,
    Batch,
    Step,
    plain_step,
)
from heliograph.model import Transformer, TransformerConfig, autocast_for
from heliograph.pipeline.training.step import (
    data_parallel,
    make_optimizer,
    seed_of,
    training_step,
)
from heliograph.pipeline.training.stopwatch import Stopwatch


@dataclass
class Timing:
    """Seconds of each step of one contestant."""

    name: str
    step: Step
    seconds: list[float] = field(default_factory=list)
    warm_up_seconds: float = 0.0


def our_step(config: TransformerConfig, device: torch.device, compiled: bool = False) -> Step:
    """The step as the pipeline takes it, by one worker; see `Worker.take`."""
    stopwatch = Stopwatch(device)
    model = Transformer(config).to(device).train()
    if compiled:
        model.compile_layers()
    module = data_parallel(model, SMOOTHING, stopwatch)
    settings: Any = SimpleNamespace(betas=(0.9, 0.98), epsilon=1e-9, weight_decay=0.0)
    optimizer = make_optimizer(model, settings)
    numbers = count(1)

    def step(batch: Batch) -> None:
        torch.manual_seed(seed_of(1, next(numbers), 0))
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE
        tokens = int((batch.target_out != config.pad_id).sum())
        micro_batches: Any = [batch.to(device)]
        training_step(
            module,
            optimizer,
            micro_batches,
            tokens,
            CLIP_NORM,
            stopwatch,
            autocast_for("auto", device),
        )
        stopwatch.read()

    return step


@contextmanager
def alone(device: torch.device) -> Iterator[None]:
    """This process is all ranks that there are."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    with TemporaryDirectory() as folder:
        dist.init_process_group(backend, f"file://{folder}/meeting", rank=0, world_size=1)
        try:
            yield
        finally:
            dist.destroy_process_group()


def make_batches(number: int, tokens: int, vocabulary_size: int) -> list[Batch]:
    """A number of them, at random, of pairs sorted by length and cut to `tokens`: pairs × longest
    side."""
    generator = torch.Generator().manual_seed(1)
    pairs = max(300_000, 2 * number * tokens // 13)
    normal = torch.randn(2, pairs, generator=generator)
    # Log-normal, 14 tokens with the end on average; the two sides' lengths correlate by 0.8.
    target = (2.6 + 0.27 * normal[0]).exp().round().clamp(5, 40).long()
    source = (2.6 + 0.27 * (0.8 * normal[0] + 0.6 * normal[1])).exp().round().clamp(5, 40).long()
    lengths = sorted(zip(target.tolist(), source.tolist(), strict=True))
    cut = list(_cut(lengths, tokens))
    chosen = torch.randperm(len(cut), generator=generator)[:number].tolist()
    return [_batch(cut[each], vocabulary_size, generator) for each in chosen]


def _cut(lengths: list[tuple[int, int]], tokens: int) -> Iterator[list[tuple[int, int]]]:
    batch: list[tuple[int, int]] = []
    longest = 0
    for pair in lengths:
        if (len(batch) + 1) * max(longest, *pair) > tokens:
            yield batch
            batch, longest = [], 0
        batch.append(pair)
        longest = max(longest, *pair)


def _batch(
    lengths: list[tuple[int, int]],
    vocabulary_size: int,
    generator: torch.Generator,
) -> Batch:
    target_lengths, source_lengths = torch.tensor(lengths).unbind(1)

    def random_ids(lengths: Tensor) -> Tensor:
        shape = (len(lengths), int(lengths.max()))
        ids = torch.randint(3, vocabulary_size, shape, generator=generator)
        return ids.masked_fill(torch.arange(shape[1]) >= lengths[:, None], 0)

    target_out = random_ids(target_lengths)
    target_in = target_out.roll(1, dims=1)
    target_in[:, 0] = 1
    source = random_ids(source_lengths)
    padded = bool((source == 0).any())
    return Batch(source, target_in.masked_fill(target_out == 0, 0), target_out, padded)


def matrix_flops(config: TransformerConfig, batch: Batch) -> float:
    """Floating-point operations of a step's matrix products, padding not counted."""
    source, target = (int((ids != config.pad_id).sum()) for ids in (batch[0], batch[2]))
    square, feed_forward = config.width**2, 2 * config.width * config.feed_forward
    encoder = config.encoder_layers * (4 * square + feed_forward)
    decoder = config.decoder_layers * (6 * square + feed_forward)
    key_value = config.decoder_layers * 2 * square
    output = config.width * config.vocabulary_size
    scores = (
        2
        * config.width
        * (
            config.encoder_layers * source * batch[0].size(1)
            + config.decoder_layers * target * (batch[0].size(1) + batch[2].size(1))
        )
    )
    weights = source * (encoder + key_value) + target * (decoder + output)
    return 2.0 * 3 * (weights + scores)  # multiply and add; forward and twice that backward


def seconds(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def matrix_product_flops(device: torch.device) -> float:
    """Per second, by a square matrix product in the precision of training; the best of ten."""
    size = 8192 if device.type == "cuda" else 2048
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    a, b = torch.randn(2, size, size, device=device, dtype=dtype).unbind()
    return 2.0 * size**3 / min(seconds(lambda: a @ b, device) for _ in range(10))


def run(options: argparse.Namespace) -> dict[str, object]:
    device = torch.device(options.device)
    if device.type == "cpu":
        torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    config = TransformerConfig(
        options.vocabulary,
        options.width,
        options.heads,
        options.layers,
        options.layers,
        options.feed_forward,
    )
    batches = make_batches(options.steps, options.tokens, options.vocabulary)
    contestants = [
        Timing("heliograph", our_step(config, device)),
        Timing("plain", plain_step(config, device, feed_forward_dropout=True)),
        Timing("plain_without_inner_dropout", plain_step(config, device, False)),
    ]
    if options.compile:
        contestants.append(Timing("heliograph_compiled", our_step(config, device, compiled=True)))
    # What is compiled depends on shapes, and on whether there is padding.
    warm_up = batches if options.compile else batches[:2]
    for contestant in contestants:
        contestant.warm_up_seconds = seconds(
            lambda: [contestant.step(batch) for batch in warm_up],  # noqa: B023
            device,
        )
    product_flops = [matrix_product_flops(device)]
    for number, batch in enumerate(batches):
        for turn in range(len(contestants)):
            contestant = contestants[(number + turn) % len(contestants)]
            # Called at once, while `contestant` is still this one.
            contestant.seconds.append(seconds(lambda: contestant.step(batch), device))  # noqa: B023
        print(f"\rstep {number + 1}/{len(batches)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    product_flops.append(matrix_product_flops(device))
    return summary(config, batches, contestants, max(product_flops), options.peak_tflops)


def summary(
    config: TransformerConfig,
    batches: list[Batch],
    contestants: list[Timing],
    product_flops: float,
    peak_tflops: float | None,
) -> dict[str, object]:
    """Rates over all steps; ratios as the median over batches, so no one step bends it."""
    tokens = sum(int((batch[2] != 0).sum()) for batch in batches)
    cells = sum(batch[0].numel() + batch[2].numel() for batch in batches)
    real = sum(int((x != 0).sum()) for batch in batches for x in (batch[0], batch[2]))
    flops = sum(matrix_flops(config, batch) for batch in batches)
    result: dict[str, object] = {
        "steps": len(batches),
        "padding": 1 - real / cells,
        "matrix_product_gflops": product_flops / 1e9,
    }
    ours = contestants[0]
    for contestant in contestants:
        total = sum(contestant.seconds)
        rates: dict[str, float] = {
            "target_tokens_per_second": tokens / total,
            "share_of_matrix_product": flops / total / product_flops,
            "warm_up_seconds": contestant.warm_up_seconds,
        }
        if peak_tflops is not None:
            rates["share_of_peak"] = flops / total / peak_tflops / 1e12
        if contestant is not ours:
            pairs = zip(contestant.seconds, ours.seconds, strict=True)
            rates["heliograph_is_faster_by"] = statistics.median(a / b for a, b in pairs)
        result[contestant.name] = rates
    return result


def print_table(result: dict[str, object], device: str) -> None:
    print(
        f"{result['steps']} steps on {device}, padding {result['padding']:.2%}, "
        f"matrix product {result['matrix_product_gflops']:,.0f} GFLOP/s"
    )
    for name, rates in result.items():
        if isinstance(rates, dict):
            print(f"  {name.replace('_', ' ')}")
            for key, value in rates.items():
                shown = f"{value:.1%}" if key.startswith("share") else f"{value:,.2f}"
                print(f"    {key.replace('_', ' '):28}{shown:>12}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2, help="of a CPU")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=4096, help="per batch: pairs x longest side")
    parser.add_argument("--layers", type=int, default=4, help="of encoder and decoder each")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--feed-forward", type=int, default=1024)
    parser.add_argument("--vocabulary", type=int, default=8000)
    parser.add_argument("--peak-tflops", type=float, help="the device's, to state a share of it")
    parser.add_argument("--compile", action="store_true", help="time train.compile, too")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args()
    with alone(torch.device(options.device)):
        result = run(options)
    if options.json:
        print(json.dumps(result))
    else:
        print_table(result, options.device)


if __name__ == "__main__":
    main()
