"""What befell a run: restarts, failures, interruptions, by training step.

An event is a small file in the job's folder before anything else is done with it. In the run it is
a point of the metric `events/KIND`, whose value counts the events of that kind, and a line of the
artifact events.jsonl.
"""

import json
import logging
import secrets
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from mlflow.entities import Metric

from pipeline.files import filesystem_of
from pipeline.metric_log import Courier
from pipeline.spool import names_in, write_whole
from pipeline.tracking_server import Client, one_line, open_client

logger = logging.getLogger(__name__)

ARTIFACT = "events.jsonl"


@dataclass(frozen=True)
class Event:
    """Something that befell a run."""

    run_id: str
    timestamp: int
    """Milliseconds since 1970."""
    step: int
    """The last optimizer step that counts: where training stood, or where it goes on from."""
    kind: str
    """A word that follows `events/` in a metric's name: restart, failure, interruption, …"""
    message: str
    """What happened, for people."""


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


def log_event(folder: str, run_id: str, kind: str, step: int, message: str) -> None:
    """Keep an event on disk, without a server.

    Raises:
        OSError: the disk cannot be written.
    """
    now = time.time_ns()  # finer than the timestamp: two in a row keep their order
    event = Event(run_id, now // 1_000_000, step, kind, message)
    files, root = filesystem_of(folder)
    path = f"{root}/{now:020d}-{secrets.token_hex(4)}.json"
    write_whole(files, path, json.dumps(asdict(event)).encode())


def read_events(folder: str) -> list[Event]:
    """All events of a job, in the order in which they happened."""
    files, root = filesystem_of(folder)
    events = []
    for name in names_in(files, root):
        with files.open_input_stream(f"{root}/{name}") as file:
            events.append(Event(**json.loads(file.read())))
    return events


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
