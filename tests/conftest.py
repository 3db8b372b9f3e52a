"""One Ray instance for the whole test run, and folders that vanish afterwards."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """Ray on 2 CPUs, quiet, with a short health check so that failures are seen quickly."""
    # Ray reads these when it starts; a value of the caller's own wins.
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
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
