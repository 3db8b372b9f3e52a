"""How far the stream of steps runs ahead of training, and how often its scheduler looks.

Both are parts that Ray Data lets one put in, by names that it may change: the tests of `stream`
hold what they are for.
"""

import time
from typing import Any

from ray.data import DataContext
from ray.data._internal.execution.backpressure_policy import (
    ENABLED_BACKPRESSURE_POLICIES,
    ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY,
)
from ray.data._internal.execution.backpressure_policy.backpressure_policy import BackpressurePolicy
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.operators.map_operator import MapOperator

TASKS_WITHOUT_CPUS = 2
"""At a time; where tasks ask for CPUs, these are the limit."""
_SPARE_WINDOWS = 2
"""Made and waiting while every task makes another, so that none of them has to wait."""
_SHORTEST_PAUSE = 0.02
_LONGEST_PAUSE, _LONGEST_IDLE_PAUSE = 0.16, 0.64
"""Seconds, between two rounds of the scheduler; idle: no task runs, or rows lie ready."""


def pace(context: DataContext) -> None:
    """Has the dataset of this context made by `WindowsAhead` and looked after by `Breather`."""
    policies = [*ENABLED_BACKPRESSURE_POLICIES, WindowsAhead]
    context.set_config(ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY, policies)
    context.custom_execution_callback_classes = [Breather]


# Ray has no types for its base classes: hence the ignores, here and elsewhere.
class WindowsAhead(BackpressurePolicy):  # type: ignore[misc]
    """A window is begun while fewer are made or waiting than there are CPUs to make them, and two.

    So every CPU works at any length of sentences when training takes all, and only a few windows
    are made in advance when it does not. A limit in bytes, which Ray has besides (half of the
    object store), allows one task or dozens, by how long the sentences are (issue 15, point 9).
    """

    def __init__(self, context: Any, topology: Any, resource_manager: Any) -> None:
        super().__init__(context, topology, resource_manager)
        self._numbers, self._windows = (each for each in topology if isinstance(each, MapOperator))
        self._queues = [topology[each] for each in list(topology)[2:]]

    def can_add_input(self, operator: Any) -> bool:
        if operator is not self._windows:
            return True
        blocks = operator.metrics.average_num_outputs_per_task  # none before a task has ended
        made = sum(queue.total_enqueued_output_blocks() for queue in self._queues)
        windows = operator.metrics.num_tasks_running + (made / blocks if blocks else 0)
        return bool(windows < self._most())

    def max_task_output_bytes_to_read(self, operator: Any) -> int | None:
        if operator is not self._numbers:
            return None
        # Twice as many as can be begun at once.
        missing = 2 * self._most() - self._topology[self._windows].total_enqueued_input_blocks()
        return int(max(0, missing) * (operator.metrics.average_bytes_per_output or 1))

    def _most(self) -> int:
        cpus = self._windows.incremental_resource_usage().cpu
        there = self._resource_manager.get_global_limits().cpu
        return int(there // cpus if cpus else TASKS_WITHOUT_CPUS) + _SPARE_WINDOWS


class Breather(ExecutionCallback):  # type: ignore[misc]
    """A pause in each round of Ray Data's scheduler, see `next_pause`.

    While a task has more output than may be taken yet, which is nearly always here, Ray 2.60 goes
    round without waiting and takes two thirds of a core from training; a round takes 3 ms.
    """

    def before_execution_starts(self, _: Any) -> None:
        self._pause, self._moved, self._taken = _SHORTEST_PAUSE, 0, 0

    def on_execution_step(self, executor: Any) -> None:
        metrics = [operator.metrics for operator in executor._topology]
        last = executor._topology[list(executor._topology)[-1]]
        ready = last.output_queue.num_blocks
        before = self._moved, self._taken
        self._moved = sum(each.num_outputs_taken for each in metrics)
        self._taken = metrics[-1].num_outputs_taken - ready
        self._pause = next_pause(
            self._pause,
            moved=self._moved != before[0],
            running=any(each.num_tasks_running for each in metrics),
            ready=ready,
            taken=self._taken - before[1],
        )
        time.sleep(self._pause)


def next_pause(pause: float, *, moved: bool, running: bool, ready: int, taken: int) -> float:
    """Seconds until the scheduler looks again.

    While training takes rows, no longer than a quarter of those that lie ready for it will last;
    while it takes none, longer each time, and from the beginning when something has moved.

    Args:
        pause: the one before.
        moved: whether rows went from one operator to the next meanwhile.
        running: whether a task runs.
        ready: rows that training can take at once.
        taken: rows that it took during `pause`.
    """
    wanted = _SHORTEST_PAUSE if moved else 2 * pause
    if taken > 0:
        wanted = pause * ready / taken / 4
    longest = _LONGEST_PAUSE if running and not ready else _LONGEST_IDLE_PAUSE
    return min(max(wanted, _SHORTEST_PAUSE), longest)
