"""Every node's system metrics arrive, by its name, whatever the server and the processes do."""

import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from pipeline.node_monitor import monitor_node
from tests.tracking_server import Door, MlflowServer

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "1.0")


def steps(server: MlflowServer, run_id: str, node: str) -> list[int]:
    key = f"system/{node}/cpu_utilization_percentage"
    return [metric.step for metric in MlflowClient(server.url).get_metric_history(run_id, key)]


def test_an_absence_leaves_no_gap_and_a_restart_no_repeat(
    server: MlflowServer, door: Door, run_id: str, tmp_path: Path
) -> None:
    started = time.time() - 100
    door.mode = "refuses"
    first = monitor_node(door.url, run_id, str(tmp_path), started, "node-a")
    time.sleep(4.5)
    first.finish(timeout=0.1)
    door.mode = "open"
    second = monitor_node(door.url, run_id, str(tmp_path), started, "node-a")
    time.sleep(4.5)
    second.finish(timeout=30)
    found = steps(server, run_id, "node-a")
    assert found == sorted(set(found))
    assert found[0] in (101, 102)
    # Each gap is the second that a measurement takes; one is longer, where the monitor restarted.
    assert len(found) >= 6
    assert max(later - earlier for earlier, later in pairwise(found)) <= 3


HOLD = """
import sys, time
from pipeline.node_monitor import monitor_node
monitor = monitor_node(*sys.argv[1:4], time.time(), sys.argv[4])
while monitor._log is None:
    time.sleep(0.05)
print("reports", flush=True)
time.sleep(60)
"""


def test_of_two_processes_on_a_node_one_reports_until_it_is_killed(
    server: MlflowServer, door: Door, run_id: str, tmp_path: Path
) -> None:
    words = [sys.executable, "-c", HOLD, door.url, run_id, str(tmp_path), "node-b"]
    other = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "reports\n"
    monitor = monitor_node(door.url, run_id, str(tmp_path), time.time(), "node-b")
    time.sleep(2.5)
    assert monitor._log is None
    other.kill()
    other.communicate()
    deadline = time.monotonic() + 20
    while monitor._log is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    monitor.finish()
    assert (tmp_path / "system-node-b").exists() or steps(server, run_id, "node-b") is not None
