"""Addresses of clusters that nobody is at, said before Ray would wait for a minute."""

import socket

import pytest
import ray

from heliograph.pipeline.cluster.start import start_ray
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.request.placement import ray_address


@pytest.fixture
def closed_port() -> int:
    """Nobody listens there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_cluster_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, closed_port: int, scheme: str
) -> None:
    """Ray's own client ended the process (issue 15, 16)."""
    address = f"{scheme}127.0.0.1:{closed_port}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # an earlier test may have done it
    with pytest.raises(RequestError, match=rf"'{address}': nobody answers there .*refused"):
        start_ray()


@pytest.mark.parametrize("address", ["http://head:8265", "https://head.example"])
def test_a_job_server_is_no_cluster_to_join(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(RequestError, match="is a job server's"):
        ray_address()


@pytest.mark.parametrize("address", ["", " ", "local"])
def test_an_empty_address_is_none(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert ray_address() is None
