"""What the server tells Prometheus."""

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SENTENCES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The counters and gauges of one server.

    Args:
        waiting: how many texts wait or are being translated, when it is asked.
    """

    def __init__(self, waiting: Callable[[], float]) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self.requests = Counter(
            "heliograph_requests",
            "Answers, by path and status; 499: the client hung up before.",
            ["path", "status"],
            registry=self._registry,
        )
        self.seconds = Histogram(
            "heliograph_request_seconds",
            "From a request's headers to the end of its answer, by path.",
            ["path"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self.batch = Histogram(
            "heliograph_batch_sentences",
            "Sentences that a replica translated together.",
            buckets=SENTENCES,
            registry=self._registry,
        )
        self.sentences = self._counter("sentences", "Sentences translated.")
        self.tokens = Counter(
            "heliograph_tokens",
            "Tokens of the translated sentences and of their best translations.",
            ["side"],
            registry=self._registry,
        )
        self.retries = self._counter("retries", "Translations begun again: their replica had died.")
        queue = self._gauge("queue_sentences", "Sentences that wait or are being translated.")
        queue.set_function(waiting)
        self.version = self._gauge("model_version", "The version in use; 0: not of the registry.")
        self.replicas = self._gauge("replicas", "Replicas that run, of the version in use.")
        self.registry_up = self._gauge(
            "registry_up", "1: the registry answered when it was last asked for the alias."
        )
        self.reloads = Counter(
            "heliograph_reloads",
            "Changes to another version, by outcome: done, failed.",
            ["outcome"],
            registry=self._registry,
        )

    def page(self) -> bytes:
        """In Prometheus' text format, version 0.0.4."""
        return generate_latest(self._registry)

    def _counter(self, name: str, meaning: str) -> Counter:
        return Counter(f"heliograph_{name}", meaning, registry=self._registry)

    def _gauge(self, name: str, meaning: str) -> Gauge:
        return Gauge(f"heliograph_{name}", meaning, registry=self._registry)
