"""One Ray instance for the whole test run, and folders that vanish afterwards."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.command import protect_local_ray

# Ray reads these when it is imported, which the test modules do; a value of the caller's own wins.
protect_local_ray()
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")


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
