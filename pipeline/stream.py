"""The step list as one stream per rank, through Ray Data.

One Ray task per window reads its pieces, tokenizes them, cuts the steps and deals them to the ranks
(`windows` says how, `portions` what comes out). The stream of all epochs is one Ray Dataset, so
there is no gap between epochs. `streaming_split` deals blocks to the ranks in turn when order is
preserved and every block holds one row. That is behaviour of Ray and not a promise, so
`batches.iterate_steps` checks each row.
"""

import os
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import pyarrow as pa
import ray
from ray.data import Dataset, Datasource, ExecutionOptions, ExecutionResources, ReadTask
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data.block import BlockMetadata

from pipeline import recipe
from pipeline.mixture import Mixture
from pipeline.portions import WindowPlan, portions
from pipeline.tokenizer import Tokenizer, shared_tokenizer
from pipeline.windows import Position

_BYTES_PER_ROW = 256
"""Of a tokenized pair, generously: what bounds the windows that are made in advance."""
_SINGLE_WINDOWS = 256
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.02, 0.16
"""Seconds, between two rounds of the scheduler."""
_TASKS_WITHOUT_CPUS = 2
"""At a time; where tasks ask for CPUs, these are the limit."""
_WAITING_ROWS = 64
"""Of each rank. A task is stopped when so many of its rows were not fetched yet: about a window's,
so that it can go on to the next one between two rounds of the scheduler."""


def step_stream(
    mixture: Mixture,
    tokenizer_path: str,
    batches: recipe.Batches,
    augment: recipe.Augment,
    *,
    seed: int,
    epochs: int | None,
    world_size: int,
    start: Position,
    max_steps: int | None,
    cpus_per_task: float = 1.0,
) -> Dataset:
    """The step list from `start` on, for `streaming_split` with `stream_options` among
    `world_size` consumers, each of which reads its split through `iterate_steps`.

    It ends with the last of `epochs`, or not before `max_steps` steps; one of them must be set.
    Nothing is read before it is consumed, and windows before `start` are never read.

    Args:
        cpus_per_task: what a task asks of Ray. One node must have this much left besides the
            training workers, else the stream waits for ever. With 0 the tasks share their CPUs.
    """
    text = Tokenizer.load(tokenizer_path).to_json()
    plan = WindowPlan(mixture, text, batches, augment, seed, world_size)
    windows = plan.windows_in_epoch
    ends = []
    if epochs is not None:
        ends.append(epochs * windows)
    if max_steps is not None:
        # An epoch has a step at least, unless no pair fits: then `iterate_steps` raises.
        ends.append((start.epoch + max_steps + 1) * windows)
    dataset = ray.data.read_datasource(
        source := _Windows(plan, start, min(ends)),
        num_cpus=cpus_per_task,
        concurrency=None if cpus_per_task else _TASKS_WITHOUT_CPUS,
        override_num_blocks=len(source.spans),
    )
    context = dataset.context
    context.execution_options = stream_options(batches)
    context.target_max_block_size = 1  # a block is cut after each row
    context._max_num_blocks_in_streaming_gen_buffer = _WAITING_ROWS * world_size
    context.custom_execution_callback_classes = [Breather]
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    return dataset


def stream_options(
    batches: recipe.Batches, labels: Mapping[str, str] | None = None
) -> ExecutionOptions:
    """How a `step_stream` must be executed: in order, and not far ahead of training; on the nodes
    with these labels, if any.

    Ray Train takes these through its DataConfig and ignores those of the dataset.
    """
    window_bytes = batches.piece_rows * batches.window_pieces * _BYTES_PER_ROW
    return ExecutionOptions(
        preserve_order=True,
        resource_limits=ExecutionResources.for_limits(object_store_memory=2 * window_bytes),
        label_selector=dict(labels or {}) or None,
    )


# Ray and pyarrow have no types for their base classes: hence the ignores, here and elsewhere.
class Breather(ExecutionCallback):  # type: ignore[misc]  # Ray has no types
    """A pause in each round of Ray Data's scheduler, longer with each in which nothing moved.

    While a task has more output than may be taken yet, which is nearly always here, Ray 2.60 goes
    round without waiting and takes two thirds of a core from training.
    """

    def before_execution_starts(self, _: Any) -> None:
        self._pause, self._taken = _SHORTEST_PAUSE, 0

    def on_execution_step(self, executor: Any) -> None:
        taken = sum(operator.metrics.num_outputs_taken for operator in executor._topology)
        moved, self._taken = taken != self._taken, taken
        self._pause = _SHORTEST_PAUSE if moved else min(2 * self._pause, _LONGEST_PAUSE)
        time.sleep(self._pause)


class _Windows(Datasource):  # type: ignore[misc]  # Ray has no types
    """Windows number `first` to `end` of all epochs; a task reads a span of them."""

    def __init__(self, plan: WindowPlan, start: Position, end: int) -> None:
        self.plan, self.start = plan, start
        first = start.epoch * plan.windows_in_epoch + start.window
        self.spans = spans(first, max(end, first + 1))

    def estimate_inmemory_data_size(self) -> int | None:
        return None  # known only when it has been tokenized

    def get_read_tasks(self, *_: Any, **__: Any) -> list[ReadTask]:
        plan = ray.put(self.plan)
        end = self.spans[-1].stop
        unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [
            ReadTask(partial(_read_span, plan, span, self.start, end), unknown)
            for span in self.spans
        ]


def spans(first: int, end: int) -> list[range]:
    """One window each at first, twice as many each time 256 spans are full: a stream bounded by
    steps is longer than needed by far, and its end must not cost anything."""
    spans: list[range] = []
    while first < end:
        size = 2 ** (len(spans) // _SINGLE_WINDOWS)
        spans.append(range(first, min(first + size, end)))
        first += size
    return spans


def _read_span(
    plan_ref: "ray.ObjectRef[WindowPlan]", span: range, start: Position, end: int
) -> Iterator[pa.Table]:
    # One core per task: Ray runs as many tasks as there are cores. This process is Ray's.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    plan = ray.get(plan_ref)
    tokenizer = shared_tokenizer(plan.tokenizer)
    for number in span:
        epoch, window = divmod(number, plan.windows_in_epoch)
        first_step = start.step if (epoch, window) == (start.epoch, start.window) else 0
        yield from portions(plan, tokenizer, epoch, window, first_step, number == end - 1)
