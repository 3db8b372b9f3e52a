"""Processes of the tests' own: forked from one that has imported what they need, once."""

from collections.abc import Callable
from functools import cache
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext
from typing import Any

from torch.multiprocessing import ProcessContext, start_processes

PRELOADED = [
    "pipeline.delivery",
    "pipeline.metric_log",
    "pipeline.node_monitor",
    "pipeline.loop",
    "tests.pipeline.saving",
]
"""torch, Ray and MLflow among them, which a new interpreter takes seconds to load."""


@cache
def context() -> ForkServerContext:
    """Where to get processes, pipes and events from; all of a test run's share it."""
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def start_ranks(
    function: Callable[..., None], arguments: tuple[Any, ...], count: int
) -> ProcessContext:
    """`function(rank, *arguments)` in so many processes at once. Whoever joins them is raised an
    error of theirs."""
    context()
    return start_processes(function, arguments, nprocs=count, join=False, start_method="forkserver")


def run_ranks(function: Callable[..., None], arguments: tuple[Any, ...], count: int) -> None:
    """The same to their end."""
    started = start_ranks(function, arguments, count)
    while not started.join():
        pass
