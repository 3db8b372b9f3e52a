"""Whatever becomes of server and process: every metric arrives, in order, once."""

import logging
import math
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from heliograph.pipeline.tracking.delivery import Delivery
from heliograph.pipeline.tracking.metric_log import MetricLog
from heliograph.pipeline.tracking.server import open_client
from heliograph.pipeline.tracking.spool import Measurement, Segment, Spool
from tests import processes
from tests.tracking_server import Door, MlflowServer, Mode
from tests.waiting import DEADLINE, abandon, wait_until


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens after seconds happens at once: the order of things is the same."""
    for pause, seconds in (("GATHER", 0.05), ("FIRST_PAUSE", 0.05), ("LONGEST_PAUSE", 0.2)):
        monkeypatch.setattr(f"heliograph.pipeline.tracking.metric_log.{pause}", seconds)


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


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The threads that ask the server, by their numbers."""
    threads: set[int] = set()

    def opened(uri: str) -> Any:
        client = open_client(uri)

        def noted(ask: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **named: Any) -> Any:
                threads.add(threading.get_ident())
                return ask(*arguments, **named)

            return call

        return SimpleNamespace(get_run=noted(client.get_run), log_batch=noted(client.log_batch))

    monkeypatch.setattr("heliograph.pipeline.tracking.delivery.open_client", opened)
    return threads


def test_metrics_arrive_in_order_and_the_caller_asks_nobody(
    server: MlflowServer, door: Door, run_id: str, spool: Path, asking: set[int]
) -> None:
    log = MetricLog(door.url, run_id, str(spool))
    for step in range(1, 1501):
        log.log(step, {"loss": float(-step), "rate": 0.5})
    assert log.close(DEADLINE)
    assert asking
    assert threading.get_ident() not in asking
    assert history(server, run_id) == [(step, float(-step)) for step in range(1, 1501)]
    assert steps_arrived(door) == list(range(1, 1501))
    assert segments(spool) == []


@pytest.mark.parametrize("mode", ["refuses", "fails", "fails_after", "cuts", "hangs"])
def test_an_absence_loses_nothing_and_repeats_nothing(
    server: MlflowServer,
    door: Door,
    run_id: str,
    spool: Path,
    mode: Mode,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if mode == "hangs":
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    log = MetricLog(door.url, run_id, str(spool))
    for step in range(1, 21):
        log.log(step, {"loss": float(step)})
    wait_until(lambda: steps_arrived(door))
    door.mode = mode
    for first in (21, 111):
        before = len(segments(spool))
        for step in range(first, first + 90):
            log.log(step, {"loss": float(step)})
        wait_until(lambda before=before: len(segments(spool)) > before)
    door.mode = "open"
    for step in range(201, 221):
        log.log(step, {"loss": float(step)})
    assert log.close(DEADLINE)
    arrived = steps_arrived(door)
    assert without_repeats(arrived) == list(range(1, 221))
    assert len(arrived) == 220 or mode in ("fails_after", "cuts", "hangs")
    assert history(server, run_id) == [(step, float(step)) for step in range(1, 221)]
    assert segments(spool) == []


def test_memory_stays_bounded_while_what_is_older_is_delivered(
    door: Door, run_id: str, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in range(1, 11):
        Spool(str(spool)).append(Segment(run_id, [Measurement("loss", 1.0, step, step)]))
    monkeypatch.setattr("heliograph.pipeline.tracking.metric_log.IN_MEMORY", 50)
    in_memory, send, logged = list[int](), Delivery.send, threading.Event()

    def noted(self: Delivery, segment: Segment) -> list[Measurement]:
        assert logged.wait(DEADLINE)
        in_memory.append(len(log._memory))
        return send(self, segment)

    monkeypatch.setattr(Delivery, "send", noted)
    log = MetricLog(door.url, run_id, str(spool))
    for step in range(11, 511):
        log.log(step, {"loss": 1.0})
    logged.set()
    wait_until(lambda: len(in_memory) > 2)
    assert log.close(DEADLINE)
    # At the first, or once it was sent, the log found so many, and put them behind the others.
    assert in_memory[0] == 500
    assert in_memory[2:] == [0] * 9
    assert steps_arrived(door) == list(range(1, 511))


def test_a_log_starts_while_the_server_is_away(
    door: Door, run_id: str, spool: Path, asking: set[int]
) -> None:
    door.mode = "hangs"
    log = MetricLog(door.url, run_id, str(spool))
    log.log(1, {"loss": 1.0})
    log.persist()
    assert not log.close(timeout=0.1)
    assert threading.get_ident() not in asking
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
    abandon(first)
    # Goes on from a checkpoint of step 20, still without the server.
    second = MetricLog(door.url, run_id, str(spool))
    for step in range(21, 41):
        second.log(step, {"loss": float(step)})
    second.persist()
    door.mode = "open"
    assert second.close(DEADLINE)
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
    assert log.close(DEADLINE)


def test_a_crash_between_delivery_and_deletion_repeats_nothing(
    door: Door, run_id: str, spool: Path, tmp_path: Path
) -> None:
    door.mode = "refuses"
    log = MetricLog(door.url, run_id, str(spool))
    for step in range(1, 31):
        log.log(step, {"loss": float(step)})
    abandon(log)
    shutil.copytree(spool, tmp_path / "copy")
    door.mode = "open"
    assert MetricLog(door.url, run_id, str(spool)).close(DEADLINE)
    shutil.copytree(tmp_path / "copy", spool, dirs_exist_ok=True)
    assert MetricLog(door.url, run_id, str(spool)).close(DEADLINE)
    assert segments(spool) == []
    assert steps_arrived(door) == list(range(1, 31))


def log_and_checkpoint(uri: str, run_id: str, spool: str, first: int, reached: Connection) -> None:
    """What a worker does: each ten steps what was logged is kept, and a checkpoint is published."""
    log = MetricLog(uri, run_id, spool)
    for step in range(first, 151):
        log.log(step, {"loss": float(step)})
        if step % 10 == 0:
            log.persist()
            reached.send(step)
        time.sleep(0.01)
    assert log.close(DEADLINE)


@contextmanager
def logging_process(*arguments: Any) -> Iterator[tuple[BaseProcess, Connection]]:
    reached, sender = processes.context().Pipe(duplex=False)
    process = processes.context().Process(target=log_and_checkpoint, args=(*arguments, sender))
    process.start()
    sender.close()
    try:
        yield process, reached
    finally:
        process.kill()
        process.join()


def test_a_killed_process_loses_no_step_that_is_not_computed_again(
    server: MlflowServer, door: Door, run_id: str, spool: Path
) -> None:
    checkpoint = 0
    # Killed while the server is there, while it is away, and with a request that took effect.
    modes: tuple[Mode, ...] = ("open", "refuses", "cuts")
    for mode, until in zip(modes, (30, 70, 110), strict=True):
        door.mode = mode
        with logging_process(door.url, run_id, str(spool), checkpoint + 1) as (process, reached):
            while checkpoint < until:
                assert reached.poll(DEADLINE)
                checkpoint = reached.recv()
            time.sleep(0.1)  # some steps further, which will be computed again
            process.kill()
            process.join()
    with logging_process(door.url, run_id, str(spool), checkpoint + 1) as (process, reached):
        assert reached.poll(DEADLINE)
        door.mode = "open"
        process.join(DEADLINE)
        assert process.exitcode == 0
    assert without_repeats(steps_arrived(door)) == list(range(1, 151))
    assert history(server, run_id) == [(step, float(step)) for step in range(1, 151)]


def test_the_server_s_process_killed_and_started_again(
    server: MlflowServer, run_id: str, spool: Path
) -> None:
    log = MetricLog(server.url, run_id, str(spool))
    for step in range(1, 101):
        log.log(step, {"loss": float(step)})
    wait_until(lambda: history(server, run_id))
    server.kill()
    try:
        for step in range(101, 301):
            log.log(step, {"loss": float(step)})
        wait_until(lambda: segments(spool))
    finally:
        server.start()  # other tests need it, too
    assert log.close(DEADLINE)
    assert history(server, run_id) == [(step, float(step)) for step in range(1, 301)]


def test_numbers_that_are_none_arrive(server: MlflowServer, run_id: str, spool: Path) -> None:
    log = MetricLog(server.url, run_id, str(spool))
    log.log(1, {"loss": math.nan, "norm": math.inf})
    log.persist()
    assert log.close(DEADLINE)
    ((step, value),), ((_, largest),) = history(server, run_id), history(server, run_id, "norm")
    assert (step, math.isnan(value)) == (1, True)
    assert largest > 1e308


def test_a_damaged_segment_is_set_aside_loudly(
    door: Door, run_id: str, spool: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2, 3):
        Spool(str(spool)).append(Segment(run_id, [Measurement("loss", 1.0, step, step)]))
    damaged = segments(spool)[1]
    damaged.write_bytes(damaged.read_bytes()[:20])
    with caplog.at_level(logging.ERROR):
        assert MetricLog(door.url, run_id, str(spool)).close(DEADLINE)
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
    assert log.close(DEADLINE)
    assert steps_arrived(door) == [1, 2]


def test_what_another_run_left_and_nobody_takes_hinders_nothing(
    server: MlflowServer, run_id: str, spool: Path
) -> None:
    """The store may have been made anew since (issue 15, 15)."""
    Spool(str(spool)).append(Segment("0" * 32, [Measurement("loss", 1.0, 1, 1)]))
    log = MetricLog(server.url, run_id, str(spool))
    log.log(1, {"loss": 2.0})
    assert log.close(DEADLINE)
    assert history(server, run_id) == [(1, 2.0)]
    assert len(segments(spool)) == 1  # kept: whoever has that store may still want it
