"""What befell a run is in it, each time once, also when the server was away."""

import json
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from heliograph.pipeline.tracking.event_log import EventLog, deliver_events
from heliograph.pipeline.tracking.events import log_event, read_events
from tests.tracking_server import Door, MlflowServer
from tests.waiting import DEADLINE, abandon


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens after seconds happens at once: the order of things is the same."""
    for pause in ("GATHER", "FIRST_PAUSE", "LONGEST_PAUSE"):
        monkeypatch.setattr(f"heliograph.pipeline.tracking.metric_log.{pause}", 0.05)


def points(server: MlflowServer, run_id: str, kind: str) -> list[tuple[int, float]]:
    history = MlflowClient(server.url).get_metric_history(run_id, f"events/{kind}")
    return [
        (point.step, point.value) for point in sorted(history, key=lambda p: (p.timestamp, p.value))
    ]


def lines(server: MlflowServer, run_id: str, folder: Path) -> list[tuple[str, int, str]]:
    mlflow.set_tracking_uri(server.url)
    uri = f"runs:/{run_id}/events.jsonl"
    path = mlflow.artifacts.download_artifacts(uri, dst_path=str(folder))
    found = [json.loads(line) for line in Path(path).read_text().splitlines()]
    assert [each["time"] for each in found] == sorted(each["time"] for each in found)
    return [(each["event"], each["step"], each["message"]) for each in found]


def test_every_event_is_in_the_run_once_though_steps_repeat_and_go_back(
    server: MlflowServer, door: Door, run_id: str, tmp_path: Path
) -> None:
    """Two processes of the job: one killed before it could deliver, one that finds the server."""
    folder = str(tmp_path / "events")
    door.mode = "refuses"
    first = EventLog(door.url, run_id, folder)
    first.log("failure", 40, "worker 1 was killed")
    first.log("restart", 40, "on 2 workers")
    abandon(first)
    door.mode = "open"
    second = EventLog(door.url, run_id, folder)
    second.log("restart", 40, "on 1 worker")
    second.log("restart", 20, "the checkpoint of step 40 is damaged")
    assert second.close(DEADLINE)
    assert points(server, run_id, "failure") == [(40, 1.0)]
    assert points(server, run_id, "restart") == [(40, 1.0), (40, 2.0), (20, 3.0)]
    assert lines(server, run_id, tmp_path) == [
        ("failure", 40, "worker 1 was killed"),
        ("restart", 40, "on 2 workers"),
        ("restart", 40, "on 1 worker"),
        ("restart", 20, "the checkpoint of step 40 is damaged"),
    ]
    assert deliver_events(MlflowClient(server.url), run_id, read_events(folder)) == 0


def test_an_event_is_on_disk_before_the_server_is_asked(door: Door, tmp_path: Path) -> None:
    door.mode = "hangs"
    log = EventLog(door.url, "run", str(tmp_path))
    log.log("failure", 3, "ünlucky")
    (event,) = read_events(str(tmp_path))
    assert (event.run_id, event.kind, event.step, event.message) == ("run", "failure", 3, "ünlucky")
    log.close(timeout=0.1)


def test_events_of_another_run_stay_out(server: MlflowServer, run_id: str, tmp_path: Path) -> None:
    log_event(str(tmp_path), "another", "failure", 1, "not here")
    log_event(str(tmp_path), run_id, "restart", 1, "here")
    assert deliver_events(MlflowClient(server.url), run_id, read_events(str(tmp_path))) == 1
    assert points(server, run_id, "failure") == []


def test_a_disk_that_cannot_be_written_ends_nothing(
    door: Door, run_id: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    door.mode = "refuses"
    log = EventLog(door.url, run_id, str(tmp_path / "file" / "events"))
    log.log("failure", 3, "the disk is full")
    log.close(timeout=0.1)
    assert "event failure (the disk is full) cannot be kept" in caplog.text
