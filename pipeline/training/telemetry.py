"""What a rank does, as Ray's metrics, which Prometheus collects from every node.

MLflow keeps what a run came to; these are for whoever watches the cluster: see deploy/grafana.
"""

import time
from collections.abc import Mapping

from ray.util.metrics import Counter, Gauge

from heliograph.pipeline.training.stopwatch import Stopwatch

SECONDS_BETWEEN_EXPORTS = 1.0
"""Prometheus asks every ten. However short a step is, it pays for a few additions only."""


class Telemetry:
    """One rank's counters and gauges; Ray adds the node's address. Each start begins at 0 again.

    Args:
        job: its folder's name, which is the recipe's and the digest of what decides the result.
        stopwatch: is read with each export.
    """

    def __init__(self, job: str, rank: int, stopwatch: Stopwatch) -> None:
        self._stopwatch = stopwatch
        self._tags = {"job_name": job, "rank": str(rank)}
        self._seconds = Counter(
            "heliograph_phase_seconds", "Where the rank's time went.", (*self._tags, "phase")
        )
        self._steps = Counter("heliograph_steps", "Optimizer steps taken.", tuple(self._tags))
        self._tokens = Counter(
            "heliograph_target_tokens",
            "Target tokens of the rank's own micro-batches, padding not counted.",
            tuple(self._tags),
        )
        self._gauges = {
            "step": Gauge("heliograph_step", "Where the job stands.", tuple(self._tags)),
            "loss": Gauge("heliograph_loss", "Nats per target token.", tuple(self._tags)),
            "bleu": Gauge("heliograph_bleu", "Of the last validation.", tuple(self._tags)),
        }
        self._new_steps = self._new_tokens = 0
        self._values: dict[str, float] = {}
        self._exported = time.monotonic()

    def took_step(self, target_tokens: int) -> None:
        """Count a step; now and then all that was counted goes to Ray."""
        self._new_steps += 1
        self._new_tokens += target_tokens
        if time.monotonic() > self._exported + SECONDS_BETWEEN_EXPORTS:
            self.export()

    def set(self, values: Mapping[str, float | None]) -> None:
        """Gauges by name; of those without a value the former one holds."""
        self._values |= {name: value for name, value in values.items() if value is not None}

    def export(self) -> None:
        """Hand over what was counted since the last time."""
        for phase, seconds in self._stopwatch.read().items():
            if seconds > 0:  # Ray's counters take no other increments
                self._seconds.inc(seconds, self._tags | {"phase": phase})
        if self._new_steps:
            self._steps.inc(self._new_steps, self._tags)
        if self._new_tokens:
            self._tokens.inc(self._new_tokens, self._tags)
        for name, value in self._values.items():
            self._gauges[name].set(value, self._tags)
        self._new_steps = self._new_tokens = 0
        self._exported = time.monotonic()
