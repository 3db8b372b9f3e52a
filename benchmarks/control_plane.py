"""What 512 ranks ask of the few processes that serve all of them: for scaling.py.

Real: the step list and its dealing to 512 ranks; the stream through Ray Data, its SplitCoordinator
and a barrier of 512 splits; the metric log into an SQLite store; calls to actors.
Simulated: the ranks. They are not processes; one process asks the coordinator for each split's next
row in turn, and looks at none of them. What a rank does with a row, how long its network is, and
the votes, which are all-reduces between GPUs, are not in it.
"""

import os
import tempfile
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from heliograph.jobs.command import mute_libraries, protect_local_ray

mute_libraries()
protect_local_ray()  # Ray reads this when it is imported

import numpy as np  # noqa: E402
import ray  # noqa: E402

from heliograph.pipeline.cluster.start import start_ray  # noqa: E402
from heliograph.pipeline.corpus.found_data import find_recipe_data  # noqa: E402
from heliograph.pipeline.request import recipe  # noqa: E402
from heliograph.pipeline.request.recipe_file import load_recipe  # noqa: E402
from heliograph.pipeline.runs import track  # noqa: E402
from heliograph.pipeline.steps.prepare import prepare  # noqa: E402
from heliograph.pipeline.steps.stream import step_stream  # noqa: E402
from heliograph.pipeline.steps.windows import Position, cut_window, deal  # noqa: E402
from heliograph.pipeline.tracking.metric_log import MetricLog  # noqa: E402
from heliograph.pipeline.tracking.server import connect  # noqa: E402

RANKS = 512
SECONDS = 40.0
"""Of dealing, at most."""
METRICS = 9


@dataclass(frozen=True)
class ControlPlane:
    """What was measured; the defaults are guesses, for --model-only."""

    rows_per_second: float = 400.0
    """Of all ranks together, that Ray Data makes and its coordinator deals."""
    first_row_seconds: float = 0.0
    """Until every one of the 512 ranks had its first row, from nothing."""
    metrics_per_second: float = 2000.0
    """That the log of rank 0 delivers."""
    polls_per_second: float = 2000.0
    """Calls to actors, as Ray Train's controller asks each worker how it is."""
    unevenness: dict[int, float] = field(default_factory=dict)
    """By ranks: the largest share of a step beside the mean one, less 1; 4,096 tokens a rank."""

    def imbalance(self, gpus: int) -> float:
        return self.unevenness.get(gpus, unevenness(gpus))


def measure_control_plane() -> ControlPlane:
    with tempfile.TemporaryDirectory() as folder:
        start_ray()
        first, rows = dealing(Path(folder))
        plane = ControlPlane(
            rows, first, metrics(Path(folder)), polls(),
            {gpus: unevenness(gpus) for gpus in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)},
        )  # fmt: skip
        ray.shutdown()
    return plane


def dealing(folder: Path) -> tuple[float, float]:
    """Seconds until all ranks had a row, and rows a second from there on."""
    job = load_recipe(
        str(Path(__file__).parents[1] / "recipes" / "demo.yaml"),
        [f"storage={folder}/storage", "batches.tokens_per_micro_batch=64",
         f"batches.tokens_per_step={64 * RANKS}"],
    )  # fmt: skip
    prepared = prepare(job, find_recipe_data(job.data, job.storage), tokenize=True)
    stream = step_stream(
        prepared.training, prepared.tokenizer, job.batches, recipe.Augment(), seed=1, epochs=1000,
        world_size=RANKS, start=Position(), max_steps=None,
    )  # fmt: skip
    splits: list[Any] = stream.streaming_split(RANKS, equal=False)
    coordinator = splits[0]._coord_actor
    started = time.perf_counter()
    epoch = ray.get([coordinator.start_epoch.remote(rank) for rank in range(RANKS)])[0]
    waiting = {coordinator.get.remote(epoch, rank, 0): rank for rank in range(RANKS)}
    seen: set[int] = set()
    rows, first = 0, 0.0
    while time.perf_counter() - started < SECONDS + first:
        ready, _ = ray.wait(list(waiting), num_returns=min(64, len(waiting)), timeout=1.0)
        for reference in ready:
            rank = waiting.pop(reference)
            bundle = ray.get(reference)
            seen.add(rank)
            rows += len(bundle.blocks) if first else 0
            waiting[coordinator.get.remote(epoch, rank, 0)] = rank
        if not first and len(seen) == RANKS:
            first = time.perf_counter() - started
    for split in splits[:1]:
        ray.kill(split._coord_actor)
    return first, rows / SECONDS


def metrics(folder: Path, steps: int = 300) -> float:
    """Metrics a second through the log of rank 0, into an SQLite store."""
    uri = f"sqlite:///{folder}/mlflow.db"
    run_id = track.open_run(connect(uri), "scaling", "metrics", "metrics", {})
    log = MetricLog(uri, run_id, f"{folder}/spool")
    started = time.perf_counter()
    for step in range(1, steps + 1):
        log.log(step, {f"metric-{number}": 1.0 for number in range(METRICS)})
    assert log.close(timeout=120)
    return steps * METRICS / (time.perf_counter() - started)


class Worker:
    """Answers as a training worker does when it is asked how it is."""

    def poll(self) -> dict[str, Any]:
        return {"running": True, "error": None}


def polls(calls: int = 2000) -> float:
    """Calls a second from one process to a few actors, a round of them at a time."""
    actors = [ray.remote(num_cpus=0)(Worker).remote() for _ in range(4)]
    ray.get([actor.poll.remote() for actor in actors])
    started = time.perf_counter()
    for _ in range(calls // 500):
        ray.get([actors[number % 4].poll.remote() for number in range(500)])
    return calls / (time.perf_counter() - started)


@cache
def unevenness(gpus: int, tokens: int = 4096) -> float:
    """Of a step list with one micro-batch of `tokens` for each rank: what the largest share of a
    step, in padded positions, exceeds the mean by."""
    random = np.random.default_rng(1)
    pairs = max(2 * gpus * tokens // 15, 20_000)
    # Lengths as Multi30k's captions have them: log-normal, 14 tokens on average.
    target = np.exp(2.6 + 0.27 * random.standard_normal(pairs)).round().clip(5, 40).astype(int)
    source = (target + random.integers(-3, 4, pairs)).clip(5, 40)
    steps = cut_window(source, target, tokens, gpus * tokens, seed=1, epoch=0, window=0)
    ratios = []
    for step in steps:
        costs = [len(rows) * int(max(source[rows].max(), target[rows].max())) for rows in step]
        loads = [sum(costs[number] for number in share) for share in deal(costs, gpus)]
        ratios.append(max(loads) / (sum(loads) / gpus))
    return float(np.mean(ratios)) - 1


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).parents[1]))
    print(measure_control_plane())
