"""What benchmarks/data.py measures of one corpus, in the process that drives Ray."""

import os
import statistics
import time
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.data import DataIterator
from ray.train import DataConfig

from heliograph.pipeline.corpus.found_data import find_recipe_data
from heliograph.pipeline.corpus.mixture import Mixture
from heliograph.pipeline.request import recipe
from heliograph.pipeline.request.recipe import Recipe
from heliograph.pipeline.steps.batches import iterate_steps
from heliograph.pipeline.steps.prepare import Prepared, prepare
from heliograph.pipeline.steps.stream import step_stream, stream_options
from heliograph.pipeline.steps.tokenizer import Tokenizer
from heliograph.pipeline.steps.windows import Position

STREAMED_PAIRS = 1_000_000
"""A smaller corpus is gone through several times, so that there is something to measure."""
RAW_TEXTS = 100_000
TEXTS_PER_CALL = 2048
ROUNDS = 2


@dataclass
class Taken:
    """What a consumer saw of a stream."""

    pairs: int = 0
    tokens: int = 0
    positions: int = 0
    seconds: float = 0.0
    first_batches: list[float] = field(default_factory=list)
    """Seconds until the first batch of each epoch."""
    longest_wait: float = 0.0
    """For any other."""


def measure(job: Recipe) -> dict[str, Any]:
    """Every figure of the recipe's corpus."""
    started = time.perf_counter()
    prepared = prepare(job, find_recipe_data(job.data, job.storage), tokenize=False)
    preparation = time.perf_counter() - started
    texts, path = prepared.texts, prepared.tokenizer
    pairs = sum(corpus.rows for corpus in texts.corpora)
    epochs = max(1, -(-STREAMED_PAIRS // pairs))
    raw, plane = [], []
    for _ in range(ROUNDS if pairs <= STREAMED_PAIRS else 1):
        raw.append(raw_speed(prepared))
        plane.append(stream(job, texts, path, epochs, Position()))
    raw.append(raw_speed(prepared))
    pairs_per_second = [taken.pairs / taken.seconds for taken in plane]
    result = {
        "pairs": pairs,
        "prepare_seconds": preparation,
        "raw_pairs_per_second": statistics.median(raw),
        "pairs_per_second": statistics.median(pairs_per_second),
        "tokens_per_second": statistics.median(t.tokens / t.seconds for t in plane),
        "share_of_raw": statistics.median(pairs_per_second) / statistics.median(raw),
        "padding": 1 - plane[0].tokens / plane[0].positions,
        "first_batch_seconds": plane[0].first_batches,
        "longest_wait_seconds": max(taken.longest_wait for taken in plane),
    }
    windows = sum(texts.shares) // job.batches.window_pieces
    for percent in (1, 90):
        start = Position(0, windows * percent // 100, 1)
        (result[f"resume_at_{percent}_percent_seconds"],) = stream(
            job, texts, path, 1, start, steps=1
        ).first_batches
    if pairs <= STREAMED_PAIRS:
        tokens = prepare(job, find_recipe_data(job.data, job.storage), tokenize=True).training
        taken = stream(job, tokens, path, epochs, Position())
        result["prepared_pairs_per_second"] = taken.pairs / taken.seconds
    return result


def raw_speed(prepared: Prepared) -> float:
    """Pairs per second that `tokenizers` encodes with all cores, the fastest way that it has, and
    nothing around it."""
    corpus = prepared.texts.corpora[0]
    pairs = corpus.head(min(corpus.rows, RAW_TEXTS))
    encoder = Tokenizer.load(prepared.tokenizer)._backend
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    started = time.perf_counter()
    for side in (0, 1):
        texts = [pair[side] for pair in pairs]
        for first in range(0, len(texts), TEXTS_PER_CALL):
            encoder.encode_batch_fast(
                texts[first : first + TEXTS_PER_CALL], add_special_tokens=False
            )
    return len(pairs) / (time.perf_counter() - started)


def stream(
    job: Recipe,
    mixture: Mixture,
    tokenizer: str,
    epochs: int,
    start: Position,
    steps: int | None = None,
) -> Taken:
    """Take the stream, or its first steps, as one training worker does."""
    started = time.time()
    dataset = step_stream(
        mixture,
        tokenizer,
        job.batches,
        recipe.Augment(),
        seed=1,
        epochs=epochs,
        world_size=1,
        start=start,
        max_steps=None,
    )
    options = stream_options()
    config = DataConfig(execution_options=options, enable_shard_locality=False)
    ((shard,),) = [
        list(split.values()) for split in config.configure({"s": dataset}, 1, None, None)
    ]
    # It asks for no CPU, because both are the plane's here.
    taken: Taken = ray.get(ray.remote(num_cpus=0)(take).remote(shard, start, steps, started))
    return taken


def take(shard: DataIterator, start: Position, steps: int | None, started: float) -> Taken:
    """Consume, in a process of its own, and do nothing with it."""
    taken, epoch, before = Taken(), None, started
    for number, step in enumerate(iterate_steps(shard, 0, 1, start), 1):
        wait = time.time() - before
        if step.position.epoch != epoch:
            epoch = step.position.epoch
            taken.first_batches.append(wait)
        else:
            taken.longest_wait = max(taken.longest_wait, wait)
        for batch in step.micro_batches:
            taken.pairs += len(batch.pairs)
            taken.tokens += int((batch.source != 0).sum() + (batch.target_out != 0).sum())
            taken.positions += batch.source.numel() + batch.target_out.numel()
        if number == steps:
            break
        before = time.time()
    taken.seconds = time.time() - started
    return taken
