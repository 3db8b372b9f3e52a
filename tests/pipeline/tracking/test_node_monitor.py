"""Every node's system metrics arrive, by its name, whatever the server and the processes do."""

import tempfile
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from heliograph.pipeline.tracking.metric_log import MetricLog
from heliograph.pipeline.tracking.node_monitor import NodeMonitor, monitor_node
from tests import processes
from tests.tracking_server import Door, MlflowServer
from tests.waiting import DEADLINE, wait_until


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several measurements a second, of which a run takes one."""
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.3")
    for pause in ("GATHER", "FIRST_PAUSE", "LONGEST_PAUSE"):
        monkeypatch.setattr(f"heliograph.pipeline.tracking.metric_log.{pause}", 0.05)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps, in seconds since the job's start, that this process has measured."""
    steps: list[int] = []
    log = MetricLog.log

    def noted(self: MetricLog, step: int, values: Any) -> None:
        log(self, step, values)
        steps.append(step)

    monkeypatch.setattr(MetricLog, "log", noted)
    return steps


def steps(server: MlflowServer, run_id: str, node: str) -> list[int]:
    key = f"system/{node}/cpu_utilization_percentage"
    return [metric.step for metric in MlflowClient(server.url).get_metric_history(run_id, key)]


def test_an_absence_leaves_no_gap_and_a_restart_no_repeat(
    server: MlflowServer, door: Door, run_id: str, tmp_path: Path, measured: list[int]
) -> None:
    started = time.time() - 100
    door.mode = "refuses"
    first = monitor_node(door.url, run_id, str(tmp_path), started, "node-a")
    wait_until(lambda: len(set(measured)) >= 2)
    first.finish(timeout=0.1)
    meanwhile = len(set(measured))
    door.mode = "open"
    second = monitor_node(door.url, run_id, str(tmp_path), started, "node-a")
    wait_until(lambda: len(set(measured)) >= meanwhile + 2)
    second.finish(DEADLINE)
    assert steps(server, run_id, "node-a") == sorted(set(measured))
    assert min(measured) >= 100  # not since this start, but since the job's


def report_until_killed(
    uri: str, run_id: str, spools: str, started: float, reports: Connection
) -> None:
    monitor = monitor_node(uri, run_id, spools, started, "node-b")
    wait_until(lambda: monitor._log)
    reports.send("reports")
    time.sleep(DEADLINE)


def test_of_two_processes_on_a_node_one_reports_until_it_is_killed(
    server: MlflowServer,
    door: Door,
    run_id: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started, tries, locked = time.time(), list[bool](), NodeMonitor._locked

    def noted(self: NodeMonitor, lock: int) -> bool:
        tries.append(locked(self, lock))
        return tries[-1]

    monkeypatch.setattr(NodeMonitor, "_locked", noted)
    reports, sender = processes.context().Pipe(duplex=False)
    other = processes.context().Process(
        target=report_until_killed,
        args=(door.url, run_id, str(tmp_path), started, sender),
        daemon=True,
    )
    other.start()
    with suppress(EOFError):  # of one that never began
        assert reports.poll(DEADLINE)
        assert reports.recv() == "reports"
    monitor = monitor_node(door.url, run_id, str(tmp_path), started, "node-b")
    wait_until(lambda: len(tries) >= 3)
    assert not any(tries)
    other.kill()
    other.join()
    before = steps(server, run_id, "node-b")
    wait_until(lambda: len(steps(server, run_id, "node-b")) > len(before))
    monitor.finish(DEADLINE)
    assert tries[-1]
    found = steps(server, run_id, "node-b")
    assert found == sorted(set(found))
    assert not list(Path(tempfile.gettempdir()).glob(f"heliograph-{run_id}*"))  # no lock is left
