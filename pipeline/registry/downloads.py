"""Artifacts out of MLflow's store: where they lie, or as a copy that does not outlive its use."""

import atexit
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.tracking.artifact_utils import _get_root_uri_and_artifact_path

from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.request.model_uri import tracking_uri
from heliograph.pipeline.tracking.server import PatientClient


def download(uri: str, names: Sequence[str] = (), into: str | None = None) -> Path:
    """A file or a folder of artifacts on this machine: the store's own if that is local, and only
    to be read; else a copy.

    Args:
        names: of a folder's files, those that are needed. Empty: all of them.
        into: an empty folder for the copy. None: one that is removed when this process ends.

    Raises:
        RequestError: there is none.
    """
    try:
        return _download(uri, names, into)
    except (MlflowException, OSError):
        # MLflow says the same of what is not there as of a server that is away: wait for an answer.
        PatientClient(tracking_uri()).search_registered_models(max_results=1)
    try:
        return _download(uri, names, into)
    except (MlflowException, OSError) as error:
        raise RequestError(f"{uri!r} cannot be read: {error}") from error


def _download(uri: str, names: Sequence[str], into: str | None) -> Path:
    if _is_local(uri):
        return Path(mlflow.artifacts.download_artifacts(uri))
    if into is None:
        into = tempfile.mkdtemp(prefix="heliograph-")
        atexit.register(shutil.rmtree, into, ignore_errors=True)
    if not names:
        return Path(mlflow.artifacts.download_artifacts(uri, dst_path=into))
    files = [mlflow.artifacts.download_artifacts(f"{uri}/{name}", dst_path=into) for name in names]
    return Path(files[0]).parent


def _is_local(uri: str) -> bool:
    """MLflow's own way to what a URI names, up to where it would copy."""
    root, _ = _get_root_uri_and_artifact_path(uri)
    store = get_artifact_repository(root)
    return isinstance(getattr(store, "repo", store), LocalArtifactRepository)
