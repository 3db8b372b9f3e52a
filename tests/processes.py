"""Processes of the tests' own: forked from one that has imported what they need, once.

Forks of the tests' own process will not do: its libraries' threads are not in them, and one was
seen to end by "double free or corruption".

Not for what connects to Ray: forks of one that has imported ray.data draw the same "random" ids.
"""

import os
from collections.abc import Callable
from functools import cache
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from typing import Any

from torch.multiprocessing import start_processes

PRELOADED = [
    "heliograph.pipeline.tracking.delivery",
    "heliograph.pipeline.tracking.metric_log",
    "heliograph.pipeline.tracking.node_monitor",
    "heliograph.pipeline.promotion.promote",
    "heliograph.pipeline.training.step",
    "tests.pipeline.saving",
]
"""torch, Ray and MLflow among them, which a new interpreter takes seconds to load."""


@cache
def context() -> ForkServerContext:
    """Where to get processes, pipes and events from; all of a test run's share it."""
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def start_here(function: Callable[..., None], *arguments: Any) -> BaseProcess:
    """`function(*arguments)` in a process with the variables that this one has now."""
    process = context().Process(
        target=_with_variables, args=(dict(os.environ), function, *arguments)
    )
    process.start()
    return process


def _with_variables(
    variables: dict[str, str], function: Callable[..., None], *arguments: Any
) -> None:
    os.environ.clear()
    os.environ.update(variables)
    function(*arguments)


def run_ranks(function: Callable[..., None], arguments: tuple[Any, ...], count: int) -> None:
    """`function(rank, *arguments)` in so many processes at once, to their end.

    Raises:
        torch.multiprocessing.ProcessRaisedException: one failed; its traceback is the message.
    """
    context()  # so that the forkserver that it starts has imported PRELOADED
    start_processes(function, arguments, nprocs=count, start_method="forkserver")
