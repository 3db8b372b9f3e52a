"""One Ray instance for the whole test run, and folders that vanish afterwards."""

import os
from collections.abc import Iterator
from functools import partialmethod
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from heliograph.jobs.command import protect_local_ray
from tests.tracking_server import SENDS_NOTICES, Door, MlflowServer, open_door

if TYPE_CHECKING:
    from heliograph.pipeline.training.plan import TrainingPlan
    from tests.small_plan import Undisturbed

# Ray reads these when it is imported, which the test modules do; a value of the caller's own wins.
protect_local_ray()
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
# Ray's processes have it from here; MLflow's own ten seconds are longer than a test's job.
os.environ.setdefault("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "1.0")
# A worker's metrics reach its node's endpoint after this; Ray's own ten seconds are a test's life.
os.environ.setdefault("RAY_metrics_report_interval_ms", "1000")
# Ray gives way to all else on its machine: here that is the other process, which has less to do.
os.environ.setdefault("RAY_worker_niceness", "0")

# A law holds on a busy machine too: no clock. What CI tries does not depend on chance.
settings.register_profile(
    "heliograph",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)
settings.load_profile("heliograph")


SHARED = ("ray_cluster", "server")
"""What takes long to start: each is started by one of the two processes of `make test`."""


@pytest.hookimpl(wrapper=True)  # pytest-xdist reads the groups in this hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """The tests that share something are a group, and so are the others of each file; a process
    takes a group at a time. Ray comes first, for its tests take longest."""

    def shared(item: pytest.Item) -> str | None:
        return next((each for each in SHARED if each in getattr(item, "fixturenames", ())), None)

    for item in items:
        item.add_marker(pytest.mark.xdist_group(shared(item) or item.path.stem))
    items.sort(key=lambda item: [*SHARED, None].index(shared(item)))
    yield


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """What files hold is no name: it is long, and gzip's has the time in it."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """Ray on 2 CPUs, quiet, with a short health check so that failures are seen quickly."""
    import ray
    from ray._private.parameter import RayParams

    from heliograph.pipeline.cluster.start import connect

    with pytest.MonkeyPatch.context() as patch:
        # Its agent wants one certain port, and takes no jobs where another Ray's has that.
        any_port = partialmethod(RayParams.__init__, dashboard_agent_listen_port=0)
        patch.setattr(RayParams, "__init__", any_port)
        connect(
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
def undisturbed(
    small_training: "TrainingPlan", tmp_path_factory: pytest.TempPathFactory
) -> "Undisturbed":
    """What the same job comes to when nothing befalls it."""
    from tests.small_plan import train_undisturbed

    return train_undisturbed(small_training, tmp_path_factory.mktemp("meeting"))


@pytest.fixture
def storage(tmp_path: Path) -> str:
    """An empty folder for corpora, tokenizers and checkpoints."""
    folder = tmp_path / "storage"
    folder.mkdir()
    return str(folder)


@pytest.fixture
def s3() -> Iterator[dict[str, str]]:
    """A bucket, and the variables by which other processes find it."""
    from tests.s3 import s3_server

    with s3_server() as variables:
        yield variables


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
