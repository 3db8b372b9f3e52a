"""What the server has already got is not sent again, whatever fails and is started again."""

import time
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from heliograph.pipeline.tracking.delivery import Delivery
from heliograph.pipeline.tracking.spool import Measurement, Segment


class Ledger:
    """A server that holds a run in memory and fails as it is told."""

    def __init__(self, outcomes: list[str]) -> None:
        self.outcomes = iter(outcomes)
        self.metrics: list[Any] = []

    def get_run(self, _: str) -> Any:
        newest = {m.key: m for m in self.metrics}
        return SimpleNamespace(data=SimpleNamespace(_metric_objs=list(newest.values())))

    def log_batch(self, _: str, metrics: list[Any]) -> None:
        outcome = next(self.outcomes, "taken")
        if outcome != "lost":
            self.metrics += metrics
        if outcome != "taken":
            raise ConnectionError(outcome)


@given(
    starts=st.lists(st.integers(0, 12), min_size=1, max_size=5),
    outcomes=st.lists(st.sampled_from(["taken", "lost", "taken, but the answer was lost"])),
    size=st.integers(1, 5),
)
def test_any_failures_and_restarts_deliver_each_step_once_in_order(
    starts: list[int], outcomes: list[str], size: int
) -> None:
    """Each start goes back to a step no later than what was logged, and on to step 12 or beyond."""
    ledger = Ledger(outcomes)
    reached = 0
    for start in starts:
        delivery = Delivery(ledger)
        steps = range(min(start, reached) + 1, min(start, reached) + 9)
        reached = max(reached, steps[-1])
        for first in range(0, len(steps), size):
            now = time.time_ns()
            batch = [
                Measurement(key, float(step), now, step)
                for step in steps[first : first + size]
                for key in ("loss", "rate")
            ]
            while True:
                try:
                    delivery.send(Segment("run", batch))
                    break
                except ConnectionError:
                    continue
    for key in ("loss", "rate"):
        steps_held = [metric.step for metric in ledger.metrics if metric.key == key]
        assert steps_held == list(range(1, reached + 1))
