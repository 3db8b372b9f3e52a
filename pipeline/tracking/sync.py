"""Delivers what a job kept on disk while its tracking server was away."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mlflow.exceptions import MlflowException
from pyarrow.fs import FileType

from heliograph.pipeline.request.errors import one_line
from heliograph.pipeline.storage.filesystems import filesystem_of
from heliograph.pipeline.storage.listing import list_folder
from heliograph.pipeline.tracking.delivery import deliver_to
from heliograph.pipeline.tracking.event_log import deliver_events
from heliograph.pipeline.tracking.events import read_events
from heliograph.pipeline.tracking.server import TrackingServerError, is_away, open_client
from heliograph.pipeline.tracking.spool import spools_below


@dataclass
class Delivered:
    """What arrived in the job's runs."""

    metrics: int = 0
    steps: int = 0
    """Counted for each writer apart: training's, and each node's system metrics."""
    events: int = 0
    refused: tuple[str, ...] = ()
    """Why the server did not take the others: of runs that it does not know, say."""

    def plus(self, other: "Delivered") -> "Delivered":
        return Delivered(*(getattr(self, name) + getattr(other, name) for name in vars(self)))


def job_folders(storage: str, job_id: str) -> list[str]:
    """The folders of the job and of what `train --new` began, as far as there are any."""
    files, root = filesystem_of(f"{storage}/jobs")
    infos = list_folder(files, root)
    names = sorted(info.base_name for info in infos if info.type == FileType.Directory)
    mine = [name for name in names if name == job_id or name.rpartition(".")[0] == job_id]
    return [f"{storage}/jobs/{name}" for name in mine]


def sync_job(uri: str, folder: str) -> Delivered:
    """Deliver the metrics and events that lie in a job's folder; it may be training meanwhile.

    Nothing is asked of the server where the folder holds neither.

    Args:
        folder: the job's own, a path or URL.

    Raises:
        TrackingServerError: the server does not answer, or does not take some of it. What had not
            arrived is still there.
    """
    delivered = Delivered()
    try:
        deliver_job(uri, folder, delivered)
        if not delivered.refused:
            return delivered
        reason = f"does not take them ({'; '.join(delivered.refused)})"
    except Exception as error:
        if not is_away(error) or (isinstance(error, OSError) and error.filename is not None):
            raise  # of the job's folder
        reason = f"does not answer ({one_line(error)})"
    raise TrackingServerError(
        f"the tracking server {uri!r} {reason}; {delivered.metrics} metrics arrived, the rest "
        f"stays in {folder}/metrics. Start it, or correct MLFLOW_TRACKING_URI, and give the same "
        "command again"
    )


def deliver_job(uri: str, folder: str, delivered: Delivered) -> None:
    """`sync_job` for a job's own end: what the server will never take hinders nothing else.

    Raises:
        Exception: whatever MLflow raises while the server is away; it may be called again.
    """
    delivered.refused = ()
    _sync_metrics(uri, f"{folder}/metrics", delivered)
    events = read_events(f"{folder}/events")
    for run_id in dict.fromkeys(event.run_id for event in events):
        with _refusal_noted(run_id, delivered):
            delivered.events += deliver_events(open_client(uri), run_id, events)


@contextmanager
def _refusal_noted(run_id: str, delivered: Delivered) -> Iterator[None]:
    """What asking again would not change is noted, once for each reason."""
    try:
        yield
    except MlflowException as error:
        if is_away(error):
            raise
        reason = f"run {run_id}: {one_line(error)}"
        delivered.refused = tuple(dict.fromkeys((*delivered.refused, reason)))


def _sync_metrics(uri: str, folder: str, delivered: Delivered) -> None:
    delivery = None
    for _, spool in spools_below(folder):
        steps: set[int] = set()
        for name in spool.names():
            segment = spool.read(name)
            if segment is None:
                continue
            delivery = delivery or deliver_to(uri)
            with _refusal_noted(segment.run_id, delivered):
                fresh = delivery.send(segment)
                spool.remove(name)
                delivered.metrics += len(fresh)
                delivered.steps += len({each.step for each in fresh} - steps)
                steps |= {each.step for each in fresh}
