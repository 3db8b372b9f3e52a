"""One training worker: what a rank does at each step.

All ranks carry the same `TrainingState` and take every decision from it (validate, checkpoint, stop
early), so none can take a step that another does not. Rank 0 alone writes: metrics, checkpoints,
progress.
"""

import math
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray
import ray.train
import torch
import torch.distributed as dist
from ray.train.torch import get_device
from ray.train.v2._internal.execution.context import get_train_context

from heliograph.model import Transformer, autocast_for, inverse_square_root
from heliograph.pipeline.checkpoints.background import BackgroundSaver
from heliograph.pipeline.checkpoints.checkpoint import Snapshot, average, load_optimizer
from heliograph.pipeline.checkpoints.model_folder import load_model, load_weights
from heliograph.pipeline.checkpoints.training_state import Meter, Validation
from heliograph.pipeline.corpus.corpus import Corpus
from heliograph.pipeline.request.errors import JobStopped, one_line
from heliograph.pipeline.runs.progress import Progress, StopWish
from heliograph.pipeline.steps.batches import Step, begun, empty_micro_batch, iterate_steps
from heliograph.pipeline.steps.tokenizer import Tokenizer
from heliograph.pipeline.storage.fence import Fence
from heliograph.pipeline.tracking.events import log_event
from heliograph.pipeline.tracking.metric_log import MetricLog
from heliograph.pipeline.training.averaging import mark_averaged, steps_to_average
from heliograph.pipeline.training.plan import TrainingPlan
from heliograph.pipeline.training.step import (
    be_deterministic,
    data_parallel,
    is_about_compiling,
    is_out_of_memory,
    make_optimizer,
    model_config,
    over_all_ranks,
    seed_of,
    training_step,
)
from heliograph.pipeline.training.stopwatch import Stopwatch
from heliograph.pipeline.training.tally import Tally
from heliograph.pipeline.training.telemetry import Telemetry
from heliograph.pipeline.training.validate import measure


class Worker:
    """One rank: model and optimizer, this rank's share of the data, the state of the job."""

    def __init__(self, plan: TrainingPlan, board: Any) -> None:
        context = ray.train.get_context()
        self.plan, self.board = plan, board
        self.rank, self.world_size = context.get_world_rank(), context.get_world_size()
        self.local_rank = context.get_local_rank()
        self.device = get_device()
        if plan.train.deterministic:
            be_deterministic()
        if self.device.type == "cpu":
            cores = os.cpu_count() or 1
            torch.set_num_threads(plan.threads or max(1, cores // context.get_local_world_size()))
        self.tokenizer = Tokenizer.load(plan.tokenizer)
        self.validation_pairs = Corpus.load(plan.validation_corpus).head(None)
        self.meter = Meter()
        self.tally = Tally(plan.train.max_skipped_steps)
        self.stopping = False
        self._stop_wish = StopWish(board) if self.rank == 0 else None
        self._restore()
        self._reported = self.state.step
        self.stopwatch = Stopwatch(self.device)
        self.telemetry = Telemetry(Path(plan.folder).name, self.rank, self.stopwatch)
        self.module = data_parallel(self.model, plan.train.label_smoothing, self.stopwatch)
        self.log = self.saver = None
        if self.rank == 0:
            self.log = MetricLog(plan.tracking_uri, plan.run_id, f"{plan.spools}/training")
            self.snapshot = Snapshot(self.model, self.optimizer, self.tokenizer, plan.recipe_yaml)
            kept = plan.train.keep_checkpoints, plan.train.keep_best
            check = Fence(plan.folder, plan.start).check
            self.saver = BackgroundSaver(
                plan.checkpoints, *kept, self._damaged, check, plan.is_scheduled
            )

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        try:
            self.telemetry.export()
            if self.saver is not None:
                self.saver.__exit__(kind, *error)
        finally:
            if self.log is not None:
                self.log.close(timeout=2.0)  # the driver delivers what does not arrive by then
                if self.stopping and kind is None:
                    ray.get(self.board.enter.remote("stopped"))

    def _restore(self) -> None:
        """Model, optimizer and state from the newest checkpoint, or fresh from the seed."""
        with self.plan.checkpoints.open_newest() as found:
            self.state, self._damaged = found.state, list(found.damaged)
            self.steps = self._steps_that_remain()
            if found.folder is None:
                torch.manual_seed(self.plan.seed)
                config = model_config(self.plan.model, self.tokenizer.vocabulary_size)
                self.model = Transformer(config)
            else:
                self.model, _ = load_model(found.folder)
            self.model.to(self.device).train()
            if self.plan.train.compile:
                self.model.compile_layers()
            self.optimizer = make_optimizer(self.model, self.plan.train)
            if found.folder is not None:
                load_optimizer(found.folder, self.model, self.optimizer)
        if self.rank == 0:
            for warning in found.warnings():
                self.board.say.remote(warning)
                log_event(self.plan.events, self.plan.run_id, "damaged", self.state.step, warning)

    def stop_wanted(self) -> bool:
        """Whether the user wants to stop, as far as is known; rank 0 speaks for all."""
        return self._stop_wish is not None and self._stop_wish.is_known()

    def agree_to_stop(self) -> None:
        """Let the driver know that its wish is followed, and by `__exit__` that all is saved."""
        self.stopping = True
        self.board.enter.remote("stopping")

    def is_announced_to_go(self) -> bool:
        """Whether the node of any worker will go away soon. `ray.train.get_preemption_info` says it
        too, but waits for all workers."""
        return get_train_context().preemption_context.preemption_info is not None

    def _steps_that_remain(self) -> Iterator[Step]:
        """This rank's share of them, asked for at once: processes of Ray's must start before the
        first one comes, while here the model is made."""
        start = self.state.position

        def steps() -> Iterator[Step]:
            shard = ray.train.get_dataset_shard("steps")
            for count, step in enumerate(iterate_steps(shard, self.rank, self.world_size, start)):
                if self.rank == 0 and count == 0:
                    self.board.enter.remote("training")
                yield step

        # A job that was lost after its last step has none to take.
        return iter(()) if self.plan.is_finished(self.state) else begun(steps())

    def due(self, *intervals: int) -> bool:
        """Whether this step is a multiple of one of the intervals, or the last one."""
        finished = self.plan.is_finished(self.state)
        return finished or any(self.state.step % interval == 0 for interval in intervals)

    def take(self, step: Step, wait: float) -> None:
        """One optimizer step, with its own random numbers so that a resume repeats them."""
        started = time.perf_counter()
        number, plan = self.state.step + 1, self.plan.train
        torch.manual_seed(seed_of(self.plan.seed, number, self.rank))
        self.rate = inverse_square_root(
            number, self.plan.model.width, plan.warmup_steps, plan.learning_rate
        )
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        batches = step.micro_batches or [empty_micro_batch()]
        loss, norm = self._or_stop(
            partial(
                training_step,
                self.module,
                self.optimizer,
                [batch.to(self.device) for batch in batches],
                step.target_tokens,
                plan.clip_norm,
                self.stopwatch,
                autocast_for(plan.precision, self.device),
            ),
            step,
        )
        self._count(step, loss, norm)
        self.meter.wait += wait
        self.meter.seconds += wait + time.perf_counter() - started
        self.epochs_done = step.epochs_done
        self.stopwatch.add("data", wait)
        self.telemetry.took_step(step.own_target_tokens)
        if self.due(self.plan.log_every_steps):
            self.report()

    def _count(self, step: Step, loss: torch.Tensor, norm: torch.Tensor) -> None:
        """What the step adds to state and meter: of a GPU's, what need not be waited for."""
        self.state = replace(self.state, step=self.state.step + 1, position=step.next_position)
        self.meter.add_batches(step.micro_batches, self.model.config.pad_id)
        self.meter.too_many_tokens += step.too_many_tokens
        self.tally.add(self.state.step, step, loss, norm)
        if self.device.type == "cpu":
            self._read()

    def _read(self) -> None:
        """What the last steps came to. Raises JobStopped when too many changed nothing."""
        self.state = self.tally.read(self.meter, self.state)

    def _or_stop(
        self, take: Callable[[], tuple[torch.Tensor, torch.Tensor]], step: Step
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Raises JobStopped when there is not enough memory for the step, or no compiler."""
        try:
            return take()
        except (RuntimeError, MemoryError) as error:
            if is_about_compiling(error):
                raise JobStopped(
                    f"the layers cannot be compiled on {socket.gethostname()}: {one_line(error)}. "
                    "Set train.compile to false, or install there what is missing"
                ) from error
            if not is_out_of_memory(error):
                raise
            raise JobStopped(
                f"step {self.state.step + 1} needs more memory than {self.device} of rank "
                f"{self.rank} has: {step.described()}. Lower batches.tokens_per_micro_batch from "
                f"{self.plan.batches.tokens_per_micro_batch}, or the model's sizes"
            ) from error

    def report(self) -> None:
        """Sum up the steps since the last report, over all ranks; log them. Called by every rank
        after the same step, also by one that had no micro-batch since the last report."""
        self._read()
        meter, self.meter = over_all_ranks(self.meter, self.device), Meter()
        self._reported = self.state.step
        self.state = replace(self.state, total=self.state.total.plus(meter))
        if self.log is None:
            return
        values = {
            "train/learning_rate": self.rate,
            "train/padding": meter.padding / meter.positions,
            "train/data_wait": meter.wait,
            "train/dropped_pairs": self.state.total.too_many_tokens,
            "train/skipped_steps": self.state.total.skipped,
        }
        if meter.target_tokens:  # else all steps were skipped
            loss = float(meter.loss) / meter.target_tokens
            speed = meter.target_tokens / meter.seconds
            values |= {
                "train/loss": loss,
                "train/perplexity": math.exp(min(loss, 100.0)),
                "train/target_tokens_per_second": speed,
            }
            bleu = self.state.latest.bleu if self.state.latest else None
            done = self.plan.share_done(self.state, self.epochs_done)
            self.board.post.remote(Progress(self.state.step, done, loss, bleu, speed))
            self.telemetry.set({"step": self.state.step, "loss": loss, "bleu": bleu})
        if math.isfinite(self.tally.norm):
            values["train/gradient_norm"] = self.tally.norm
        self.log.log(self.state.step, values)

    def validate(self) -> None:
        """Loss and BLEU on the validation set, each rank computing a share; all ranks know both."""
        self.stopwatch.start("validation")
        measured = self._measure()
        self.stopwatch.stop()
        self.state = self.state.with_validation(measured)
        if self.log is not None:
            values = {"valid/loss": measured.loss, "valid/bleu": measured.bleu}
            values |= {"valid/perplexity": math.exp(min(measured.loss, 100.0))}
            values |= {"valid/chrf": measured.chrf, "valid/exact_match": measured.exact_match}
            self.log.log(self.state.step, values)

    def _measure(self) -> Validation:
        """The model as it is now."""
        self.model.eval()
        step, pairs = self.state.step, self.validation_pairs
        # As the model will be used, which is never compiled.
        with torch.compiler.set_stance("force_eager"):
            measured = measure(step, self.model, self.tokenizer, pairs, self.plan)
        self.model.train()
        return measured

    def save(self) -> None:
        """Begin to write a checkpoint; the pause that this costs is logged."""
        if self.state.step > self._reported:  # the state's sums must be whole
            self.report()
        if self.saver is None or self.log is None:
            return
        self.saver.save(self.state.step, partial(self._snapshot, time.perf_counter()))

    def _snapshot(self, started: float) -> Callable[[Path], None]:
        """A copy of everything, and what writes it; then training may go on."""
        assert self.log is not None
        write = self.snapshot.take(self.state)
        pause = time.perf_counter() - started
        self.stopwatch.add("checkpoint", pause)
        self.log.log(self.state.step, {"train/checkpoint_pause": pause})
        self.log.persist()  # with this checkpoint, the metrics up to here are not computed again
        return write

    def average(self) -> None:
        """Section 6.1: score the mean of the last checkpoints, and keep it if it is the best."""
        if self.saver is not None:
            self.saver.finish()
        dist.barrier()  # the last checkpoint is written
        if steps := steps_to_average(self.plan, self.state):
            self._average(steps)
        if self.rank == 0:
            mark_averaged(self.plan, self.state)

    def _average(self, steps: list[int]) -> None:
        with TemporaryDirectory() as temporary:
            folders = [Path(temporary) / str(step) for step in steps]
            for step, folder in zip(steps, folders, strict=True):
                self.plan.checkpoints.fetch(step, folder)
            load_weights(self.model, average(folders))
        measured = self._measure()
        if self.log is not None:
            self.log.log(self.state.step, {"valid/bleu_of_average": measured.bleu})
        if self.state.best is None or measured.score > self.state.best.score:
            self.state = replace(self.state, averaged=measured)
            if self.rank == 0:
                self.plan.averages.save(self.state.step, self.snapshot.take(self.state))
