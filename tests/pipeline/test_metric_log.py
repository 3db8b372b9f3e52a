"""Whatever becomes of server and process: every metric arrives, in order, once."""

import logging
import math
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.tracking import MlflowClient

from pipeline.metric_log import IN_MEMORY, Delivery, MetricLog
from pipeline.spool import Measurement, Segment, Spool
from tests.tracking_server import (
    Door,
    MlflowServer,
    Mode,
)

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def history(server: MlflowServer, run_id: str, key: str = "loss") -> list[tuple[int, float]]:
    metrics = MlflowClient(server.url).get_metric_history(run_id, key)
    return [(metric.step, metric.value) for metric in metrics]


def segments(spool: Path) -> list[Path]:
    return sorted(spool.glob("[!.]*.json"))


def steps_arrived(door: Door) -> list[int]:
    return [step for key, step in door.arrived if key == "loss"]


def without_repeats(steps: list[int]) -> list[int]:
    """MLflow's client sends a request again by itself when its answer was lost; the server takes
    what is equal to the last digit once, as `history` shows."""
    return list(dict.fromkeys(steps))


def wait_until(condition: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def test_metrics_arrive_in_order_and_logging_takes_no_time(
    server: MlflowServer, door: Door, run_id: str, spool: Path
) -> None:
    log = MetricLog(door.url, run_id, str(spool))
    started = time.monotonic()
    for step in range(1, 1501):
        log.log(step, {"loss": float(-step), "rate": 0.5})
    assert time.monotonic() - started < 1.0
    assert log.close(timeout=60)
    assert history(server, run_id) == [(step, float(-step)) for step in range(1, 1501)]
    assert steps_arrived(door) == list(range(1, 1501))
    assert segments(spool) == []


@pytest.mark.parametrize("mode", ["refuses", "fails", "fails_after", "cuts", "hangs"])
def test_an_absence_loses_nothing_and_repeats_nothing(
    server: MlflowServer, door: Door, run_id: str, spool: Path, mode: Mode
) -> None:
    log = MetricLog(door.url, run_id, str(spool))
    for step in range(1, 21):
        log.log(step, {"loss": float(step)})
    wait_until(lambda: steps_arrived(door))
    door.mode = mode
    slowest = 0.0
    for step in range(21, 201):
        started = time.monotonic()
        log.log(step, {"loss": float(step)})
        slowest = max(slowest, time.monotonic() - started)
        time.sleep(0.02)
    wait_until(lambda: segments(spool))
    assert slowest < 0.2  # a time slice on a busy machine, but no request
    door.mode = "open"
    for step in range(201, 221):
        log.log(step, {"loss": float(step)})
    assert log.close(timeout=60)
    arrived = steps_arrived(door)
    assert without_repeats(arrived) == list(range(1, 221))
    assert len(arrived) == 220 or mode in ("fails_after", "cuts")
    assert history(server, run_id) == [(step, float(step)) for step in range(1, 221)]
    assert segments(spool) == []


def test_memory_stays_bounded_while_a_server_is_away(door: Door, run_id: str, spool: Path) -> None:
    door.mode = "refuses"
    log = MetricLog(door.url, run_id, str(spool))
    for step in range(1, 5 * IN_MEMORY):
        log.log(step, {"loss": 1.0})
    wait_until(lambda: log._memory == [])
    assert not log.close(timeout=0.1)


def test_a_log_starts_while_the_server_is_away(door: Door, run_id: str, spool: Path) -> None:
    door.mode = "hangs"
    started = time.monotonic()
    log = MetricLog(door.url, run_id, str(spool))
    log.log(1, {"loss": 1.0})
    log.persist()
    assert time.monotonic() - started < 0.5
    assert not log.close(timeout=0.5)
    assert time.monotonic() - started < 2.0
    (segment,) = segments(spool)
    kept = Spool(str(spool)).read(segment.name)
    assert kept is not None
    assert (kept.run_id, [each[:2] for each in kept.measurements]) == (run_id, [("loss", 1.0)])


def test_what_an_earlier_process_left_is_delivered_first(
    server: MlflowServer, door: Door, run_id: str, spool: Path
) -> None:
    door.mode = "refuses"
    first = MetricLog(door.url, run_id, str(spool))
    for step in range(1, 31):
        first.log(step, {"loss": float(step)})
    assert not first.close(timeout=0.2)
    # Goes on from a checkpoint of step 20, still without the server.
    second = MetricLog(door.url, run_id, str(spool))
    for step in range(21, 41):
        second.log(step, {"loss": float(step)})
    second.persist()
    door.mode = "open"
    assert second.close(timeout=30)
    assert steps_arrived(door) == list(range(1, 41))
    assert history(server, run_id) == [(step, float(step)) for step in range(1, 41)]


def test_what_waits_arrives_by_itself(door: Door, run_id: str, spool: Path) -> None:
    """Nothing more is logged and nobody waits: the log itself sees that the server is back."""
    Spool(str(spool)).append(Segment(run_id, [Measurement("loss", 1.0, 1, 1)]))
    door.mode = "fails"
    log = MetricLog(door.url, run_id, str(spool))
    wait_until(lambda: door.requests)
    door.mode = "open"
    wait_until(lambda: steps_arrived(door) == [1] and not segments(spool))
    assert log.close(timeout=10)


def test_a_crash_between_delivery_and_deletion_repeats_nothing(
    door: Door, run_id: str, spool: Path, tmp_path: Path
) -> None:
    door.mode = "refuses"
    log = MetricLog(door.url, run_id, str(spool))
    for step in range(1, 31):
        log.log(step, {"loss": float(step)})
    assert not log.close(timeout=0.2)
    shutil.copytree(spool, tmp_path / "copy")
    door.mode = "open"
    assert MetricLog(door.url, run_id, str(spool)).close(timeout=30)
    shutil.copytree(tmp_path / "copy", spool, dirs_exist_ok=True)
    assert MetricLog(door.url, run_id, str(spool)).close(timeout=30)
    assert segments(spool) == []
    assert steps_arrived(door) == list(range(1, 31))


LOGGING_PROCESS = """
import sys, time
from pipeline.metric_log import MetricLog
uri, run_id, spool, first = sys.argv[1:]
log = MetricLog(uri, run_id, spool)
for step in range(int(first), 151):
    log.log(step, {"loss": float(step)})
    if step % 10 == 0:
        log.persist()
        print(step, flush=True)  # the checkpoint is published
    time.sleep(0.02)
sys.exit(not log.close(60))
"""


def test_a_killed_process_loses_no_step_that_is_not_computed_again(
    server: MlflowServer, door: Door, run_id: str, spool: Path
) -> None:
    def start(first: int) -> "subprocess.Popen[str]":
        words = [sys.executable, "-c", LOGGING_PROCESS, door.url, run_id, str(spool), str(first)]
        return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)

    checkpoint = 0
    # Killed while the server is there, while it is away, and with a request that took effect.
    modes: tuple[Mode, ...] = ("open", "refuses", "cuts")
    for mode, until in zip(modes, (30, 70, 110), strict=True):
        door.mode = mode
        process = start(checkpoint + 1)
        assert process.stdout is not None
        while checkpoint < until:
            checkpoint = int(process.stdout.readline())
        time.sleep(0.1)  # some steps further, which will be computed again
        process.send_signal(signal.SIGKILL)
        process.wait()
    process = start(checkpoint + 1)
    time.sleep(1.0)
    door.mode = "open"
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert without_repeats(steps_arrived(door)) == list(range(1, 151))
    assert history(server, run_id) == [(step, float(step)) for step in range(1, 151)]


def test_the_server_s_process_killed_and_started_again(
    server: MlflowServer, run_id: str, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    log = MetricLog(server.url, run_id, str(spool))
    for step in range(1, 301):
        log.log(step, {"loss": float(step)})
        time.sleep(0.01)
        if step == 100:
            server.kill()
    server.start()
    assert log.close(timeout=60)
    assert history(server, run_id) == [(step, float(step)) for step in range(1, 301)]


def test_numbers_that_are_none_arrive(server: MlflowServer, run_id: str, spool: Path) -> None:
    log = MetricLog(server.url, run_id, str(spool))
    log.log(1, {"loss": math.nan, "norm": math.inf})
    log.persist()
    assert log.close(timeout=30)
    ((step, value),) = history(server, run_id)
    assert step == 1
    assert math.isnan(value)
    ((_, largest),) = history(server, run_id, "norm")
    assert largest > 1e308


def test_a_damaged_segment_is_set_aside_loudly(
    door: Door, run_id: str, spool: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2, 3):
        Spool(str(spool)).append(Segment(run_id, [Measurement("loss", 1.0, step, step)]))
    damaged = segments(spool)[1]
    damaged.write_bytes(damaged.read_bytes()[:20])
    with caplog.at_level(logging.ERROR):
        assert MetricLog(door.url, run_id, str(spool)).close(timeout=30)
    assert steps_arrived(door) == [1, 3]
    assert str(damaged) in caplog.text
    assert [path.name for path in spool.iterdir()] == [f"{damaged.name}.damaged"]


def test_a_spool_that_cannot_be_written_is_an_error_of_the_checkpoint_alone(
    door: Door, run_id: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    door.mode = "refuses"
    log = MetricLog(door.url, run_id, str(tmp_path / "file" / "spool"))
    log.log(1, {"loss": 1.0})
    with pytest.raises(OSError, match="spool"):
        log.persist()
    (tmp_path / "file").unlink()
    door.mode = "open"
    log.log(2, {"loss": 1.0})
    assert log.close(timeout=30)
    assert steps_arrived(door) == [1, 2]


class Ledger:
    """A server that holds a run in memory and fails as it is told."""

    def __init__(self, outcomes: list[str]) -> None:
        self.outcomes = iter(outcomes)
        self.metrics: list[Any] = []

    def get_run(self, _: str) -> Any:
        newest = {m.key: m for m in self.metrics}
        return SimpleNamespace(data=SimpleNamespace(_metric_objs=list(newest.values())))

    def log_batch(self, _: str, metrics: list[Any]) -> None:
        outcome = next(self.outcomes, "taken")
        if outcome != "lost":
            self.metrics += metrics
        if outcome != "taken":
            raise ConnectionError(outcome)


@given(
    starts=st.lists(st.integers(0, 12), min_size=1, max_size=5),
    outcomes=st.lists(st.sampled_from(["taken", "lost", "taken, but the answer was lost"])),
    size=st.integers(1, 5),
)
def test_any_failures_and_restarts_deliver_each_step_once_in_order(
    starts: list[int], outcomes: list[str], size: int
) -> None:
    """Each start goes back to a step no later than what was logged, and on to step 12 or beyond."""
    ledger = Ledger(outcomes)
    reached = 0
    for start in starts:
        delivery = Delivery(ledger)
        steps = range(min(start, reached) + 1, min(start, reached) + 9)
        reached = max(reached, steps[-1])
        for first in range(0, len(steps), size):
            now = time.time_ns()
            batch = [
                Measurement(key, float(step), now, step)
                for step in steps[first : first + size]
                for key in ("loss", "rate")
            ]
            while True:
                try:
                    delivery.send(Segment("run", batch))
                    break
                except ConnectionError:
                    continue
    for key in ("loss", "rate"):
        steps_held = [metric.step for metric in ledger.metrics if metric.key == key]
        assert steps_held == list(range(1, reached + 1))
