"""One Ray instance for the whole test run, and folders that vanish afterwards."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from jobs.command import protect_local_ray
from tests.tracking_server import SENDS_NOTICES, Door, MlflowServer, open_door

if TYPE_CHECKING:
    from pipeline.plan import TrainingPlan
    from tests.small_plan import Undisturbed

# Ray reads these when it is imported, which the test modules do; a value of the caller's own wins.
protect_local_ray()
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
# Ray's processes have it from here; MLflow's own ten seconds are longer than a test's job.
os.environ.setdefault("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "1.0")
# A worker's metrics reach its node's endpoint after this; Ray's own ten seconds are a test's life.
os.environ.setdefault("RAY_metrics_report_interval_ms", "1000")

# A law holds on a busy machine too: no clock. What CI tries does not depend on chance.
settings.register_profile(
    "heliograph",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)
settings.load_profile("heliograph")


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


@pytest.fixture(scope="session")
def small_training(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> "TrainingPlan":
    """A corpus and a tokenizer, and how to train on them; `tests.small_plan.job` makes a job."""
    from tests.small_plan import small_plan

    return small_plan(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def undisturbed(small_training: "TrainingPlan") -> "Undisturbed":
    """One job for the whole test run, since a start of Ray Train takes twenty seconds."""
    from tests.small_plan import train_undisturbed

    return train_undisturbed(small_training)


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
def door(server: MlflowServer) -> Iterator[Door]:
    """The server, to be reached through a door that can be shut."""
    with open_door(server) as door:
        yield door


@pytest.fixture
def run_id(server: MlflowServer) -> str:
    """A new run on the server."""
    from mlflow.tracking import MlflowClient

    return str(MlflowClient(server.url).create_run("0").info.run_id)
