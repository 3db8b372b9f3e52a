"""The step list as one stream per rank, through Ray Data.

One Ray task per window reads its pieces, tokenizes them, cuts the steps and deals them to the ranks
(`windows` says how, `portions` what comes out). The stream of all epochs is one Ray Dataset, so
there is no gap between epochs. `streaming_split` deals blocks to the ranks in turn when order is
preserved and every block holds one row. That is behaviour of Ray and not a promise, so
`batches.iterate_steps` checks each row.
"""

import os
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import pyarrow as pa
import ray
from ray.data import Dataset, Datasource, ExecutionOptions, ReadTask
from ray.data.block import BlockMetadata

from heliograph.pipeline.corpus.mixture import Mixture
from heliograph.pipeline.request import recipe
from heliograph.pipeline.steps.pacing import TASKS_WITHOUT_CPUS, pace
from heliograph.pipeline.steps.portions import WindowPlan, portions
from heliograph.pipeline.steps.tokenizer import Tokenizer, shared_tokenizer
from heliograph.pipeline.steps.windows import Position

_WAITING_ROWS = 64
"""Of each rank. A task is stopped when so many of its rows were not fetched yet: about a window's,
so that it can end and make room for the next one between two rounds of the scheduler."""


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
    first = start.epoch * windows + start.window
    end = max(min(ends), first + 1)
    numbers = ray.data.read_datasource(
        _WindowNumbers(first, end), num_cpus=0, concurrency=1, override_num_blocks=1
    )
    dataset = numbers.map_batches(
        partial(_make_window, plan=plan, start=start, last=end - 1),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=cpus_per_task,
        concurrency=None if cpus_per_task else TASKS_WITHOUT_CPUS,
    )
    context = dataset.context
    context.execution_options = stream_options()
    context.target_max_block_size = 1  # a block is cut after each row
    context._max_num_blocks_in_streaming_gen_buffer = _WAITING_ROWS * world_size
    pace(context)
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    return dataset


def stream_options(labels: Mapping[str, str] | None = None) -> ExecutionOptions:
    """How a `step_stream` must be executed: in order; on the nodes with these labels, if any.

    Ray Train takes these through its DataConfig and ignores those of the dataset.
    """
    return ExecutionOptions(preserve_order=True, label_selector=dict(labels or {}) or None)


# Ray and pyarrow have no types for their base classes: hence the ignores, here and elsewhere.
class _WindowNumbers(Datasource):  # type: ignore[misc]
    """The windows of all epochs by number, from `first` to before `end`, made as they are asked
    for: a stream that is bounded by steps is longer than needed by far, and its end costs nothing.
    """

    def __init__(self, first: int, end: int) -> None:
        self._first, self._end = first, end

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, *_: Any, **__: Any) -> list[ReadTask]:
        unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [ReadTask(partial(_count, self._first, self._end), unknown)]


def _count(first: int, end: int) -> Iterator[pa.Table]:
    for number in range(first, end):
        yield pa.table({"window": [number]})


def _make_window(
    numbers: pa.Table, plan: WindowPlan, start: Position, last: int
) -> Iterator[pa.Table]:
    # One core per task: Ray runs as many tasks as there are cores. This process is Ray's.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    (number,) = numbers["window"].to_pylist()
    epoch, window = divmod(number, plan.windows_in_epoch)
    first_step = start.step if (epoch, window) == (start.epoch, start.window) else 0
    tokenizer = shared_tokenizer(plan.tokenizer)
    yield from portions(plan, tokenizer, epoch, window, first_step, number == last)
