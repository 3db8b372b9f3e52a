"""The sides of benchmarks/overhead.py, each in processes of its own, and what they both read.

python -m benchmarks.sides prepare|watching|SIDE FOLDER
"""

import itertools
import json
import os
import pickle
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from math import exp
from pathlib import Path
from typing import Any

import pyarrow as pa

from heliograph.jobs.command import mute_libraries, protect_local_ray

mute_libraries()
protect_local_ray()  # Ray reads this when it is imported

import ray  # noqa: E402
import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from ray.train import RunConfig, ScalingConfig  # noqa: E402
from ray.train.torch import TorchTrainer  # noqa: E402
from torch.nn.parallel import DistributedDataParallel  # noqa: E402
from torch.utils.data import DataLoader, IterableDataset  # noqa: E402

import heliograph.pipeline.training.loop  # noqa: E402
import heliograph.pipeline.workers.train  # noqa: E402
from heliograph.model import SmoothedLoss, Transformer, inverse_square_root  # noqa: E402
from heliograph.pipeline.cluster.start import capacity, start_ray  # noqa: E402
from heliograph.pipeline.corpus.found_data import find_recipe_data  # noqa: E402
from heliograph.pipeline.corpus.mixture import Mixture  # noqa: E402
from heliograph.pipeline.job.job import plan_of  # noqa: E402
from heliograph.pipeline.request.placement import place  # noqa: E402
from heliograph.pipeline.request.recipe import Cluster  # noqa: E402
from heliograph.pipeline.request.recipe_file import load_recipe  # noqa: E402
from heliograph.pipeline.runs import track  # noqa: E402
from heliograph.pipeline.runs.progress import ProgressLine, open_board  # noqa: E402
from heliograph.pipeline.steps.batches import Step, empty_micro_batch, iterate_steps  # noqa: E402
from heliograph.pipeline.steps.portions import WindowPlan, portions  # noqa: E402
from heliograph.pipeline.steps.prepare import prepare  # noqa: E402
from heliograph.pipeline.steps.tokenizer import Tokenizer  # noqa: E402
from heliograph.pipeline.steps.windows import Position  # noqa: E402
from heliograph.pipeline.tracking.metric_log import MetricLog  # noqa: E402
from heliograph.pipeline.tracking.server import connect  # noqa: E402
from heliograph.pipeline.training.plan import TrainingPlan  # noqa: E402
from heliograph.pipeline.training.step import (  # noqa: E402
    data_parallel,
    make_optimizer,
    model_config,
    seed_of,
    training_step,
)
from heliograph.pipeline.training.stopwatch import Stopwatch  # noqa: E402
from heliograph.pipeline.training.telemetry import Telemetry  # noqa: E402
from heliograph.pipeline.training.worker import Worker  # noqa: E402
from heliograph.pipeline.workers.node_watch import NodeWatch  # noqa: E402

WORKERS = 2
WARM_UP = 10
JOB = [
    "model.width=256", "model.encoder_layers=3", "model.decoder_layers=3", "train.epochs=null",
    "validation.every_steps=1000000", "train.checkpoint_steps=1000000",
]  # fmt: skip
"""The sizes of recipes/multi30k.yaml on the demo's corpus, which is everywhere."""


def make_plan(folder: Path, steps: int) -> None:
    """The plan of all sides, and each rank's part of the same step list as a file."""
    overrides = [*JOB, f"train.steps={steps}", f"storage={folder}/storage"]
    recipe = load_recipe(str(Path(__file__).parents[1] / "recipes/demo.yaml"), overrides)
    client = connect(f"sqlite:///{folder}/mlflow.db")
    start_ray()
    prepared = prepare(recipe, find_recipe_data(recipe.data, recipe.storage), tokenize=True)
    run_id = track.open_run(client, "overhead", "plan", "plan", {})
    plan = plan_of(recipe, prepared, client, f"{folder}/job", run_id)
    (folder / "plan").write_bytes(pickle.dumps(plan))
    rows: list[list[pa.Table]] = [[] for _ in range(WORKERS)]
    taken = 0
    for tables in windows_of(plan):
        for row in tables:
            rows[row["rank"][0].as_py()].append(row)
        taken += tables[-1]["steps_in_window"][0].as_py()
        if taken >= steps:
            break
    for rank, of_rank in enumerate(rows):
        with pa.ipc.new_file(f"{folder}/rank-{rank}", of_rank[0].schema) as writer:
            for table in of_rank:
                writer.write_table(table)


def windows_of(plan: TrainingPlan) -> Iterator[list[pa.Table]]:
    """Window after window, the portions of all ranks."""
    tokenizer = Tokenizer.load(plan.tokenizer)
    mixture, text = Mixture.load(plan.corpora), tokenizer.to_json()
    windows = WindowPlan(mixture, text, plan.batches, plan.augment, plan.seed, WORKERS)
    for number in itertools.count():
        epoch, window = divmod(number, windows.windows_in_epoch)
        yield list(portions(windows, tokenizer, epoch, window, 0, False))


class FromFile:
    """What `iterate_steps` asks of a shard."""

    def __init__(self, path: str) -> None:
        self._reader = pa.ipc.open_file(pa.memory_map(path))

    def iter_batches(self, **_: Any) -> Iterator[pa.Table]:
        for number in range(self._reader.num_record_batches):
            yield pa.Table.from_batches([self._reader.get_batch(number)])


class Portions(IterableDataset[pa.Table]):
    """A rank's portions, made while it trains."""

    def __init__(self, plan: TrainingPlan, rank: int) -> None:
        self._plan, self._rank = plan, rank

    def __iter__(self) -> Iterator[pa.Table]:
        for tables in windows_of(self._plan):
            yield from (each for each in tables if each["rank"][0].as_py() == self._rank)


class MadeMeanwhile:
    """By a process beside the rank; what `iterate_steps` asks of a shard."""

    def __init__(self, plan: TrainingPlan, rank: int) -> None:
        self._loader = DataLoader(
            Portions(plan, rank), batch_size=None, num_workers=1, multiprocessing_context="spawn"
        )

    def iter_batches(self, **_: Any) -> Iterator[pa.Table]:
        return iter(self._loader)


def by_torchrun_bare(plan: TrainingPlan, folder: Path) -> None:
    """The plain loop in processes that torchrun has started."""
    dist.init_process_group("gloo")
    bare_loop(plan, folder, "torchrun_bare")
    dist.destroy_process_group()


def by_ray_train_bare(plan: TrainingPlan, folder: Path) -> None:
    """The plain loop in Ray Train's workers, Ray and Ray Train as they come."""
    from benchmarks import sides  # by the name that the workers know it by

    ray.init(runtime_env={"worker_process_setup_hook": mute_libraries})
    loop = partial(sides.bare_loop, plan, folder, "ray_train_bare")
    scaling, run = ScalingConfig(num_workers=WORKERS), RunConfig(storage_path=f"{folder}/ray_train")
    TorchTrainer(lambda: loop(), scaling_config=scaling, run_config=run).fit()
    ray.shutdown()


def bare_loop(plan: TrainingPlan, folder: Path, side: str) -> None:
    """Over batches made beforehand."""
    for _ in plain_loop(plan, FromFile(f"{folder}/rank-{dist.get_rank()}")):
        if dist.get_rank() == 0:
            note(folder, side)


def by_torchrun(plan: TrainingPlan, folder: Path) -> None:
    """With batches made meanwhile and every step's metrics in MLflow."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    log = None
    if rank == 0:
        run_id = track.open_run(connect(plan.tracking_uri), "overhead", "torchrun", "torchrun", {})
        log = MetricLog(plan.tracking_uri, run_id, f"{folder}/torchrun-metrics")
    began = time.perf_counter()
    for number, metrics in enumerate(plain_loop(plan, MadeMeanwhile(plan, rank)), 1):
        loss = torch.tensor([metrics.pop("train/loss")])
        dist.all_reduce(loss)
        seconds, began = time.perf_counter() - began, time.perf_counter()
        if log is not None:
            tokens = metrics.pop("target_tokens")
            mean = float(loss) / tokens
            speed = {"train/target_tokens_per_second": tokens / seconds}
            log.log(number, metrics | speed | {"train/loss": mean, "train/perplexity": exp(mean)})
            note(folder, "torchrun")
    if log is not None:
        log.close()
    dist.destroy_process_group()


def plain_loop(plan: TrainingPlan, shard: Any) -> Iterator[dict[str, float]]:
    """What each rank does, and what came of each step."""
    rank, device = dist.get_rank(), torch.device("cpu")
    torch.set_num_threads(1)
    torch.manual_seed(plan.seed)
    config = model_config(plan.model, Tokenizer.load(plan.tokenizer).vocabulary_size)
    stopwatch = Stopwatch(device)
    model = Transformer(config).train()
    module = data_parallel(model, plan.train.label_smoothing, stopwatch)
    optimizer = make_optimizer(model, plan.train)
    for number, step in enumerate(iterate_steps(shard, rank, WORKERS, Position()), 1):
        torch.manual_seed(seed_of(plan.seed, number, rank))
        rate = inverse_square_root(
            number, plan.model.width, plan.train.warmup_steps, plan.train.learning_rate
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        batches = step.micro_batches or [empty_micro_batch()]
        loss, norm = training_step(
            module, optimizer, batches, step.target_tokens, plan.train.clip_norm, stopwatch
        )
        stopwatch.read()
        yield {
            "train/loss": float(loss),
            "train/gradient_norm": float(norm),
            "train/learning_rate": rate,
            "target_tokens": step.target_tokens,
        }
        if number == plan.train.steps:
            break


class TimedWorker(Worker):
    """Rank 0 writes down when it has taken each step."""

    def take(self, step: Step, wait: float) -> None:
        super().take(step, wait)
        if self.rank == 0:
            note(Path(self.plan.folder).parent, "heliograph")

    def validate(self) -> None:
        """Not even at the end, which is not measured."""

    save = average = validate


def timed_loop(plan: TrainingPlan, board: Any) -> str:
    heliograph.pipeline.training.loop.Worker = TimedWorker  # type: ignore[misc]  # this process does nothing else
    return heliograph.pipeline.training.loop.training_loop(plan, board)


def by_heliograph(plan: TrainingPlan, folder: Path) -> None:
    """As `heliograph.pipeline.job.job` trains, in a new run and a new folder each time."""
    from benchmarks import sides  # by the name that the workers know it by

    heliograph.pipeline.workers.train.training_loop = sides.timed_loop
    name = f"turn-{time.time_ns()}"
    run_id = track.open_run(connect(plan.tracking_uri), "overhead", name, name, {})
    plan = replace(plan, folder=f"{folder}/{name}", run_id=run_id)
    start_ray()
    cluster = Cluster(workers=WORKERS)
    board = open_board()
    with NodeWatch(plan), ProgressLine(board):
        heliograph.pipeline.workers.train.train(plan, place(cluster, capacity()), cluster, board)
    ray.shutdown()


class Unwatched:
    """A stopwatch that measures nothing."""

    def start(self, _: str | None) -> None: ...

    def stop(self) -> None: ...


def watching(plan: TrainingPlan, folder: Path) -> None:
    """What stopwatch and telemetry add to a step: one process takes each step with and without
    them, in turn; printed are the median of the ratios and the seconds of a step."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=0, world_size=1)
    start_ray()
    torch.set_num_threads(2)
    config = model_config(plan.model, Tokenizer.load(plan.tokenizer).vocabulary_size)
    watch = Stopwatch(torch.device("cpu"))
    telemetry = Telemetry("overhead", 0, watch)
    models = [Transformer(config).train() for _ in range(2)]
    modules: list[Any] = [
        data_parallel(models[0], plan.train.label_smoothing, watch),
        DistributedDataParallel(
            SmoothedLoss(models[1], plan.train.label_smoothing), gradient_as_bucket_view=True
        ),
    ]
    optimizers = [make_optimizer(model, plan.train) for model in models]
    seconds: list[list[float]] = [[], []]
    shard: Any = FromFile(f"{folder}/rank-0")
    for number, step in enumerate(iterate_steps(shard, 0, WORKERS, Position())):
        for side in ((0, 1), (1, 0))[number % 2]:
            started = time.perf_counter()
            batches = step.micro_batches or [empty_micro_batch()]
            some: Any = (watch, Unwatched())[side]
            training_step(modules[side], optimizers[side], batches, 1000, 1.0, some)
            if side == 0:
                telemetry.took_step(step.own_target_tokens)
            seconds[side].append(time.perf_counter() - started)
        if number == plan.train.steps:
            break
    ratios = [a / b for a, b in zip(*(each[WARM_UP:] for each in seconds), strict=True)]
    print(json.dumps({"watched_of_unwatched": statistics.median(ratios),
                      "step_seconds": statistics.median(seconds[1])}))  # fmt: skip
    ray.shutdown()


def note(folder: Path, side: str) -> None:
    with (folder / f"{side}.times").open("a") as file:
        file.write(f"{time.time()}\n")


def main() -> None:
    side, folder = sys.argv[1], Path(sys.argv[2])
    if side == "prepare":
        return make_plan(folder, int(sys.argv[3]))
    plan = pickle.loads((folder / "plan").read_bytes())
    side_of = {
        "torchrun_bare": by_torchrun_bare,
        "ray_train_bare": by_ray_train_bare,
        "torchrun": by_torchrun,
        "heliograph": by_heliograph,
        "watching": watching,
    }
    return partial(side_of[side], plan, folder)()


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).parents[1]))
    main()
