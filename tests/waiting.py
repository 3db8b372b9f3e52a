"""Waiting for what a test has caused: for a state, never for a time. How fast it was is no matter
here; only what never happens fails, and late."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

DEADLINE = 180.0
"""Seconds for anything that is waited for: a busy machine has all the time that it needs."""
LONG = 3 * DEADLINE
"""For what takes minutes itself: whole jobs, and clusters of hosts."""

T = TypeVar("T")


def wait_until(
    condition: Callable[[], T],
    said: Callable[[], object] = lambda: "",
    pause: float = 0.02,
    seconds: float = DEADLINE,
) -> T:
    """What the condition gives once that is true.

    Args:
        said: what to show when it never is.
        pause: seconds between two looks; longer ones leave a condition that takes some work to find
            out, and is waited for long, from taking a core.
        seconds: DEADLINE or LONG.
    """
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, said() or "it did not happen"
        time.sleep(pause)
    return found


def abandon(log: Any) -> None:
    """Close a log whose server is away as a process does that ends: no attempt of its is under way
    afterwards, to be answered when the server is back."""
    assert not log.close(timeout=0.2)
    wait_until(lambda: not log._courier._thread.is_alive())
