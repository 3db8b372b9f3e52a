"""One training worker: the loop that every rank runs.

All ranks carry the same `TrainingState` and take every decision from it (validate, checkpoint, stop
early), so none can take a step that another does not. Rank 0 alone writes: metrics, checkpoints,
progress.
"""

import math
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray.train
import torch
import torch.distributed as dist
from ray.train.torch import get_device
from torch.nn.parallel import DistributedDataParallel

from model import SmoothedLoss, Transformer, inverse_square_root
from pipeline.batches import Step, iterate_steps
from pipeline.checkpoint import (
    TrainingState,
    Validation,
    average,
    load_optimizer,
    load_state,
    save_state,
)
from pipeline.corpus import Corpus
from pipeline.model_folder import load_model, load_weights, save_model
from pipeline.plan import TrainingPlan
from pipeline.progress import Progress
from pipeline.step import (
    Meter,
    autocast_for,
    empty_micro_batch,
    make_optimizer,
    model_config,
    seed_of,
    training_step,
)
from pipeline.tokenizer import Tokenizer
from pipeline.track import MetricLog, monitor_node
from pipeline.validate import validation_loss, validation_scores


def training_loop(plan: TrainingPlan, board: Any) -> str:
    """What each worker runs; returns the final state as JSON."""
    with Worker(plan, board) as worker:
        for step, wait in _timed(worker.steps()):
            worker.take(step, wait)
            if worker.due(plan.validation.every_steps):
                worker.validate()
            if worker.due(*plan.checkpoint_intervals):
                worker.save()
            if plan.is_finished(worker.state):
                break
        worker.average()
        return worker.state.to_json()


class Worker:
    """One rank: model and optimizer, this rank's share of the data, the state of the job."""

    def __init__(self, plan: TrainingPlan, board: Any) -> None:
        context = ray.train.get_context()
        self.plan, self.board = plan, board
        self.rank, self.world_size = context.get_world_rank(), context.get_world_size()
        self.local_rank = context.get_local_rank()
        self.device = get_device()
        if self.device.type == "cpu":
            cores = os.cpu_count() or 1
            torch.set_num_threads(plan.threads or max(1, cores // context.get_local_world_size()))
        self.tokenizer = Tokenizer.load(plan.tokenizer)
        self.validation_pairs = Corpus.load(plan.validation_corpus).head(None)
        self.meter = Meter()
        self._restore()
        self.module = DistributedDataParallel(
            SmoothedLoss(self.model, plan.train.label_smoothing), gradient_as_bucket_view=True
        )

    def __enter__(self) -> "Worker":
        self.log = MetricLog(self.plan.tracking_uri, self.plan.run_id) if self.rank == 0 else None
        # One process of every node reports for it.
        self.monitor = (
            monitor_node(self.plan.tracking_uri, self.plan.run_id) if self.local_rank == 0 else None
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self.monitor is not None:
            self.monitor.finish()
        if self.log is not None:
            self.log.close()

    def _restore(self) -> None:
        """Model, optimizer and state from the newest checkpoint, or fresh from the seed."""
        with TemporaryDirectory() as temporary:
            folder = Path(temporary) / "checkpoint"
            found = self.plan.checkpoints.fetch_newest(folder)
            if found is None:
                torch.manual_seed(self.plan.seed)
                config = model_config(self.plan.model, self.tokenizer.vocabulary_size)
                self.model, self.state = Transformer(config), TrainingState()
            else:
                self.model, _ = load_model(folder)
                self.state = load_state(folder)
            self.model.to(self.device).train()
            self.optimizer = make_optimizer(self.model, self.plan.train)
            if found is not None:
                load_optimizer(folder, self.model, self.optimizer)

    def steps(self) -> Iterator[Step]:
        """This rank's share of the steps that remain."""
        shard = ray.train.get_dataset_shard("steps")
        return iterate_steps(shard, self.rank, self.world_size, self.state.position)

    def due(self, *intervals: int) -> bool:
        """Whether this step is a multiple of one of the intervals, or the last one."""
        finished = self.plan.is_finished(self.state)
        return finished or any(self.state.step % interval == 0 for interval in intervals)

    def take(self, step: Step, wait: float) -> None:
        """One optimizer step, with its own random numbers so that a resume repeats them."""
        started = time.perf_counter()
        number, plan = self.state.step + 1, self.plan.train
        torch.manual_seed(seed_of(self.plan.seed, number, self.rank))
        rate = inverse_square_root(
            number, self.plan.model.width, plan.warmup_steps, plan.learning_rate
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batches = step.micro_batches or [empty_micro_batch(self.model.config)]
        loss, norm = training_step(
            self.module,
            self.optimizer,
            [batch.to(self.device) for batch in batches],
            step.target_tokens,
            plan.clip_norm,
            autocast_for(plan.precision, self.device),
        )
        self.state = replace(self.state, step=number, position=step.next_position)
        self.meter.loss += loss
        self.meter.target_tokens += step.target_tokens
        self.meter.add_batches(step.micro_batches, self.model.config.pad_id)
        self.meter.too_many_tokens += step.too_many_tokens
        self.meter.wait += wait
        self.meter.seconds += wait + time.perf_counter() - started
        # Before a checkpoint too: the sums in it must be whole.
        if self.due(self.plan.log_every_steps, *self.plan.checkpoint_intervals):
            self._report(step, rate, float(norm))

    def _report(self, step: Step, rate: float, norm: float) -> None:
        meter, self.meter = self.meter.reduce(self.device), Meter()
        self.state = replace(self.state, total=self.state.total.plus(meter))
        loss = float(meter.loss) / meter.target_tokens
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} at step {self.state.step}: lower train.learning_rate "
                "or raise train.warmup_steps"
            )
        speed = meter.target_tokens / meter.seconds
        if self.log is not None:
            self.log.log(
                self.state.step,
                {
                    "train/loss": loss,
                    "train/perplexity": math.exp(min(loss, 100.0)),
                    "train/learning_rate": rate,
                    "train/gradient_norm": norm,
                    "train/target_tokens_per_second": speed,
                    "train/padding": meter.padding / meter.positions,
                    "train/data_wait": meter.wait,
                    "train/dropped_pairs": self.state.total.too_many_tokens,
                },
            )
            done = self.plan.share_done(self.state, self._epochs_done(step))
            bleu = self.state.latest.bleu if self.state.latest else None
            self.board.post.remote(Progress(self.state.step, done, loss, bleu, speed))

    def _epochs_done(self, step: Step) -> float:
        position = step.position
        windows = position.window + (position.step + 1) / step.steps_in_window
        return position.epoch + windows / step.windows_in_epoch

    def validate(self) -> None:
        """Loss and BLEU on the validation set, each rank computing a share; all ranks know both."""
        measured = self._measure()
        self.state = self.state.with_validation(measured)
        if self.log is not None:
            values = {"valid/loss": measured.loss, "valid/bleu": measured.bleu}
            values |= {"valid/perplexity": math.exp(min(measured.loss, 100.0))}
            self.log.log(self.state.step, values | {"valid/chrf": measured.chrf})

    def _measure(self) -> Validation:
        """The model as it is now."""
        settings, pairs = self.plan.validation, self.validation_pairs
        self.model.eval()
        loss = validation_loss(
            self.model, self.tokenizer, pairs, self.plan.batches.tokens_per_micro_batch
        )
        scores = validation_scores(
            self.model, self.tokenizer, pairs[: settings.sentences], settings.beam
        )
        self.model.train()
        return Validation(self.state.step, loss, scores.bleu, scores.chrf)

    def save(self) -> None:
        """Write a checkpoint, drop those that are no longer kept; rank 0 only."""
        if self.rank != 0 or self.log is None:
            return
        started = time.perf_counter()
        self.plan.checkpoints.save(self.state.step, self._write)
        best = [self.state.best.step] if self.state.best else []
        self.plan.checkpoints.prune(self.plan.train.keep_checkpoints, best)
        self.log.log(self.state.step, {"train/checkpoint_pause": time.perf_counter() - started})

    def _write(self, folder: Path) -> None:
        save_model(folder, self.model, self.tokenizer)
        save_state(folder, self.model, self.optimizer, self.state)
        (folder / "recipe.yaml").write_text(self.plan.recipe_yaml, encoding="utf-8")

    def average(self) -> None:
        """Section 6.1: score the mean of the last checkpoints, and keep it if it is the best."""
        count = self.plan.train.average_checkpoints
        dist.barrier()  # the last checkpoint is written
        steps = self.plan.checkpoints.steps()[-count:]
        if count == 0 or len(steps) < count:
            return
        with TemporaryDirectory() as temporary:
            folders = [Path(temporary) / str(step) for step in steps]
            for step, folder in zip(steps, folders, strict=True):
                self.plan.checkpoints.fetch(step, folder)
            load_weights(self.model, average(folders))
        measured = self._measure()
        if self.log is not None:
            self.log.log(self.state.step, {"valid/bleu_of_average": measured.bleu})
        if self.state.best is None or measured.bleu > self.state.best.bleu:
            self.state = replace(self.state, averaged=measured)
            if self.rank == 0:
                self.plan.averages.save(self.state.step, self._write)


def _timed(steps: Iterator[Step]) -> Iterator[tuple[Step, float]]:
    """Each step with the seconds that were spent waiting for it."""
    while True:
        started = time.perf_counter()
        try:
            step = next(steps)
        except StopIteration:
            return
        yield step, time.perf_counter() - started
