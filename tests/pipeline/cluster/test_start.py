"""Ray on a machine that is busy, and clusters that nobody is at."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import ray
from ray._private import worker

from heliograph.pipeline.cluster.start import ALONE, start_ray
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.request.placement import ray_address
from tests.waiting import DEADLINE, wait_until


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


RAYLET = "import subprocess; subprocess.run(['sleep', '600'])"
LATE = "The current node timed out during startup. This could happen because …"


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Whatever an earlier test has started, or the environment names."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(worker, "print_to_stdstream", worker.print_to_stdstream)  # to be put back
    for name in ("RAY_ADDRESS", *ALONE):
        monkeypatch.setenv(name, "")  # so that its absence is put back, too
        monkeypatch.delenv(name)
    return monkeypatch


def test_what_nodes_warn_of_is_no_answer(
    without_ray: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_ray.setattr(ray, "init", lambda **_: None)
    start_ray()
    warning = {"lines": ["WARNING: 14 PYTHON worker processes"], "pid": "raylet", "is_err": False}
    worker.print_to_stdstream(warning, ignore_prefix=False)
    said = capsys.readouterr()
    assert said.out == ""
    assert "14 PYTHON worker processes" in said.err


def test_settings_for_a_ray_of_its_own_are_not_carried_to_a_cluster(
    without_ray: pytest.MonkeyPatch, closed_port: int
) -> None:
    """Where a node's end may be announced, it is listened for."""
    without_ray.setattr(ray, "init", lambda **_: None)
    start_ray()
    assert ALONE.items() <= os.environ.items()
    without_ray.setenv("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # a user's own word
    without_ray.setenv("RAY_ADDRESS", f"127.0.0.1:{closed_port}")
    with pytest.raises(RequestError, match="nobody answers"):
        start_ray()
    kept = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}
    assert {name: os.environ.get(name) for name in ALONE} == dict.fromkeys(ALONE) | kept


@pytest.mark.parametrize("late", [1, 2, 3])
def test_where_ray_s_processes_come_late_it_is_started_again(
    without_ray: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], late: int
) -> None:
    """Beside an installation its half minute was too short (issue 16).

    What a process of Ray's has started goes with it; what another thread has started stays.
    """
    half_started: list[psutil.Process] = []
    others: list[subprocess.Popen[bytes]] = []

    def init(**_: object) -> None:
        if len(others) < late:
            others.append(subprocess.Popen(["sleep", "600"]))
            raylet = subprocess.Popen(
                [sys.executable, "-c", RAYLET, str(Path(ray.__file__).parent)]
            )
            process = psutil.Process(raylet.pid)
            half_started.append(process)
            half_started.append(wait_until(process.children)[0])
            raise Exception(LATE)

    without_ray.setattr(ray, "init", init)
    try:
        if late < 3:
            start_ray()
        else:
            with pytest.raises(Exception, match="timed out during startup"):
                start_ray()
        assert all(other.poll() is None for other in others)
        # The last one's Ray ends at this process's own end.
        assert [each for each in half_started if each.is_running()] == half_started[4:]
    finally:
        for process in [*half_started[4:], *others]:
            process.kill()
            process.wait()
    assert len(others) == late
    assert capsys.readouterr().err.count("started again") == min(late, 2)


ON_A_BUSY_MACHINE = """
import itertools, time, types
import psutil, ray
from ray._private import node, services, worker
from ray._private.utils import publish_error_to_driver
from heliograph.pipeline.cluster.start import start_ray

hours, get_node, asked = itertools.count(0, 3600), services.get_node, []

def late(*words, **options):
    asked.append(words)
    if len(asked) == 1:
        raise RuntimeError("not yet")
    return get_node(*words, **options)

services.get_node = late
node.time = types.SimpleNamespace(
    sleep=time.sleep, time=time.time, monotonic=lambda: next(hours)
)
start_ray()
print(len({asked[0], asked[-1]}), ray.get(ray.remote(lambda: "done").remote()))

@ray.remote
def imports():
    import tokenizers
    return tokenizers.Tokenizer.__name__

print(ray.get(imports.remote()))
names = [process.name() for process in psutil.Process().children(recursive=True)]
print(names.count("raylet"), names.count("gcs_server"))

publish_error_to_driver("test", "a node warns", worker.global_worker.gcs_client)
time.sleep(3)
"""


@pytest.mark.faults
def test_where_ray_s_own_processes_come_late_they_are_started_again(tmp_path: Path) -> None:
    """The first start is late because its clock runs fast. And the workers import the libraries,
    whatever lies where the driver is."""
    (tmp_path / "tokenizers.py").write_text("raise ImportError('of the user')")
    done = subprocess.run(
        [sys.executable, "-P", "-c", ON_A_BUSY_MACHINE],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.stdout.splitlines() == ["2 done", "Tokenizer", "1 1"], done.stderr
    assert "a node warns" in done.stderr
