"""Whether a tracking server does what a job needs of it, for `doctor`."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version

import mlflow
from mlflow.artifacts import download_artifacts
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from heliograph.pipeline.promotion.webhooks import check_keeps_secrets
from heliograph.pipeline.request.errors import RequestError, one_line
from heliograph.pipeline.request.model_uri import sqlite_path
from heliograph.pipeline.tracking.server import create_experiment, open_client

EXPERIMENT = "heliograph doctor"
"""Each diagnosis opens a run in it and deletes it again."""


@dataclass(frozen=True)
class Probe:
    """Where artifacts are tried: a run that nobody needs."""

    uri: str
    run_id: str


@contextmanager
def open_probe(uri: str) -> Iterator[Probe]:
    """A run to try things with, deleted with its artifacts afterwards.

    Raises:
        Exception: whatever MLflow raises when the server does not answer or refuses.
    """
    client = open_client(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is not None and experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    number = experiment.experiment_id if experiment else create_experiment(client, EXPERIMENT)
    run = client.create_run(number)
    try:
        yield Probe(uri, run.info.run_id)
    finally:
        # There may be none, or a store that deletes nothing: what was tried counts.
        with suppress(Exception):
            get_artifact_repository(run.info.artifact_uri).delete_artifacts()
        client.delete_run(run.info.run_id)


def write_artifact(probe: Probe, name: str) -> str | None:
    """Leave an artifact in the probe's run; what went wrong."""
    database = sqlite_path(probe.uri)
    if database is not None and not database.exists():  # MLflow would make one
        return f"there is no file {database}; a cluster of several nodes needs a tracking server"
    try:
        open_client(probe.uri).log_text(probe.run_id, name, name)
    except Exception as error:
        return one_line(error)
    return None


def artifact_error(probe: Probe) -> str | None:
    """Write an artifact and read it back, as a job and whoever loads its model do."""
    name = f"{secrets.token_hex(4)}.txt"
    if (refused := write_artifact(probe, name)) is not None:
        return refused
    try:
        uri = f"runs:/{probe.run_id}/{name}"
        path = download_artifacts(artifact_uri=uri, tracking_uri=probe.uri)
        with open(path, encoding="utf-8") as file:
            return None if file.read() == name else "what was written was read back changed"
    except Exception as error:
        return one_line(error)


def server_version(uri: str) -> str:
    """Of MLflow behind the address; for a store without a server this process' own.

    Raises:
        Exception: whatever the transport raises.
    """
    if not is_server(uri):
        return version("mlflow")
    host = mlflow.utils.rest_utils.MlflowHostCreds(uri)
    reply = mlflow.utils.rest_utils.http_request(host, "/version", "GET", timeout=5, max_retries=0)
    return str(reply.text).strip() if reply.status_code == 200 else "unknown"


def is_server(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


def webhook_error() -> str | None:
    """Why the server cannot keep the secrets of webhooks."""
    try:
        check_keeps_secrets()
    except RequestError as error:
        return str(error)
    return None
