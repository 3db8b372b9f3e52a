"""One Ray instance for the whole test run, and folders that vanish afterwards."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.command import protect_local_ray
from tests.tracking_server import SENDS_NOTICES, Door, MlflowServer, open_door

# Ray reads these when it is imported, which the test modules do; a value of the caller's own wins.
protect_local_ray()
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
# A worker's metrics reach its node's endpoint after this; Ray's own ten seconds are a test's life.
os.environ.setdefault("RAY_metrics_report_interval_ms", "1000")


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """Ray on 2 CPUs, quiet, with a short health check so that failures are seen quickly."""
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=1_000_000_000,
        logging_level="ERROR",
        log_to_driver=False,
    )
    yield
    ray.shutdown()


@pytest.fixture
def storage(tmp_path: Path) -> str:
    """An empty folder for corpora, tokenizers and checkpoints."""
    folder = tmp_path / "storage"
    folder.mkdir()
    return str(folder)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """The one tracking server of the test run: it takes long to start."""
    server = MlflowServer(tmp_path_factory.mktemp("mlflow"), environment=SENDS_NOTICES)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def door(server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    """The server, to be reached through a door that can be shut."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    with open_door(server) as door:
        yield door


@pytest.fixture
def run_id(server: MlflowServer) -> str:
    """A new run on the server."""
    from mlflow.tracking import MlflowClient

    return str(MlflowClient(server.url).create_run("0").info.run_id)
