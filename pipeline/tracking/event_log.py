"""Brings a run's events into it: points of metrics `events/KIND`, and lines of events.jsonl."""

import json
import logging
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from mlflow.entities import Metric

from heliograph.pipeline.request.errors import one_line
from heliograph.pipeline.tracking.events import Event, log_event, read_events
from heliograph.pipeline.tracking.metric_log import Courier
from heliograph.pipeline.tracking.server import Client, open_client

logger = logging.getLogger(__name__)

ARTIFACT = "events.jsonl"


class EventLog:
    """The events of a run, delivered in the background.

    Any number of processes may log events of the same run.

    Args:
        folder: path or URL of the job's events.
    """

    def __init__(self, uri: str, run_id: str, folder: str) -> None:
        self._uri, self._run_id, self._folder = uri, run_id, folder
        self._client: Client | None = None
        self._courier = Courier(self._deliver, self._not_delivered, "event-log")
        self._courier.wake()  # for what an earlier process left

    def log(self, kind: str, step: int, message: str) -> None:
        """Keep an event on disk; it reaches the run later.

        A disk that cannot be written is reported and otherwise ignored: it may be the event.
        """
        try:
            log_event(self._folder, self._run_id, kind, step, message)
        except OSError as error:
            logger.error("event %s (%s) cannot be kept: %s", kind, message, one_line(error))
        self._courier.wake()

    def close(self, timeout: float = 60.0) -> bool:
        """Wait until all events are in the run, at most so many seconds; whether they are."""
        return self._courier.close(timeout)

    def _deliver(self) -> None:
        if self._client is None:
            self._client = open_client(self._uri)
        deliver_events(self._client, self._run_id, read_events(self._folder))

    def _not_delivered(self, error: Exception) -> None:
        logger.info("events are not delivered yet: %s", one_line(error))


def deliver_events(client: Client, run_id: str, events: Sequence[Event]) -> int:
    """Put the run's events into it, those that it does not hold; how many these are.

    Unlike other metrics they need not come in the order of their steps: a run can fail twice at the
    same step, or go back behind it. So a metric's whole history is compared, which is short.
    """
    events = [event for event in events if event.run_id == run_id]
    numbers: Counter[str] = Counter()
    points = []
    for event in events:
        numbers[event.kind] += 1
        key = f"events/{event.kind}"
        points.append(Metric(key, float(numbers[event.kind]), event.timestamp, event.step))
    held = {
        (point.key, point.timestamp, point.step)
        for kind in numbers
        for point in client.get_metric_history(run_id, f"events/{kind}")
    }
    fresh = [point for point in points if (point.key, point.timestamp, point.step) not in held]
    if not fresh:
        return 0
    # The artifact first: a run that holds the metrics has the lines too.
    client.log_text(run_id, "".join(_line(event) for event in events), ARTIFACT)
    client.log_batch(run_id, metrics=fresh)
    return len(fresh)


def _line(event: Event) -> str:
    when = datetime.fromtimestamp(event.timestamp / 1000, UTC).isoformat(timespec="milliseconds")
    content = {"time": when, "step": event.step, "event": event.kind, "message": event.message}
    return json.dumps(content, ensure_ascii=False) + "\n"
