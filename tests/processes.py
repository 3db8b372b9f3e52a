"""Processes of the tests' own: forked from one that has imported what they need, once.

Not for what connects to Ray: forks of one that has imported ray.data draw the same "random" ids.
"""

from collections.abc import Callable
from functools import cache
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext
from typing import Any

from torch.multiprocessing import start_processes

PRELOADED = [
    "pipeline.delivery",
    "pipeline.metric_log",
    "pipeline.node_monitor",
    "pipeline.step",
    "tests.pipeline.saving",
]
"""torch, Ray and MLflow among them, which a new interpreter takes seconds to load."""


@cache
def context() -> ForkServerContext:
    """Where to get processes, pipes and events from; all of a test run's share it."""
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def run_ranks(function: Callable[..., None], arguments: tuple[Any, ...], count: int) -> None:
    """`function(rank, *arguments)` in so many processes at once, to their end.

    Raises:
        torch.multiprocessing.ProcessRaisedException: one failed; its traceback is the message.
    """
    context()
    start_processes(function, arguments, nprocs=count, start_method="forkserver")
