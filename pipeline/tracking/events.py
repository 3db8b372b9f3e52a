"""What befell a run: restarts, failures, interruptions, by training step.

An event is a small file in the job's folder before anything else is done with it. In the run it is
a point of the metric `events/KIND`, whose value counts the events of that kind, and a line of the
artifact events.jsonl.
"""

import json
import secrets
import time
from dataclasses import asdict, dataclass

from heliograph.pipeline.storage.filesystems import filesystem_of
from heliograph.pipeline.storage.listing import write_whole
from heliograph.pipeline.tracking.spool import names_in


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
