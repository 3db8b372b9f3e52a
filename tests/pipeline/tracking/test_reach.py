"""A tracking server for all nodes of a cluster; nodes that do not reach it are in tests/cluster."""

from pathlib import Path

import pytest
import ray

from heliograph.pipeline.cluster.start import GROWS_TO
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.tracking.reach import check_reached

pytestmark = pytest.mark.usefixtures("ray_cluster")

HERE = ["sqlite:////somewhere/mlflow.db", "http://localhost:5000", "http://user:word@127.0.0.1"]


@pytest.mark.parametrize("uri", HERE)
def test_a_store_of_this_machine_is_enough_for_it_alone(
    monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv(GROWS_TO, "/nowhere/cluster.yaml")
    check_reached(uri)
    monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
    monkeypatch.delenv(GROWS_TO)
    check_reached(uri)


@pytest.mark.parametrize("uri", HERE)
def test_nodes_that_are_to_come_would_not_find_it(
    monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    """On a node, MLflow makes an empty database where there is none."""
    monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
    monkeypatch.setenv(GROWS_TO, "/nowhere/cluster.yaml")
    with pytest.raises(RequestError, match=r"is on this node, .* valid: the address of a server"):
        check_reached(uri)


def test_a_store_that_all_nodes_reach(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
    monkeypatch.setattr("heliograph.pipeline.tracking.reach.has_others", lambda: True)
    check_reached(f"sqlite:///{tmp_path}/mlflow.db")
