"""One job is one run; a step is logged once; a store that is away delays metrics, not training."""

import sqlite3
import time
from pathlib import Path

import pytest
import torch
from mlflow.tracking import MlflowClient

from pipeline import track
from pipeline.errors import RequestError
from pipeline.model_uri import tracking_uri


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    return track.connect(tracking_uri())


@pytest.fixture
def run_id(client: MlflowClient) -> str:
    return track.open_run(client, "experiment", "job-1", "job", {"seed": 1, "data": {"train": "a"}})


def history(client: MlflowClient, run_id: str, key: str) -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in client.get_metric_history(run_id, key)]


def test_the_store_is_beside_the_command(client: MlflowClient, run_id: str, tmp_path: Path) -> None:
    client.log_text(run_id, "x", "x.txt")
    assert (tmp_path / "mlflow.db").is_file()
    assert list((tmp_path / "mlartifacts").rglob("x.txt"))
    assert not (tmp_path / "mlruns").exists()


def test_a_job_started_again_continues_its_run(client: MlflowClient, run_id: str) -> None:
    track.close_run(client, run_id, succeeded=False)
    again = track.open_run(client, "experiment", "job-1", "job", {"seed": 1})
    other = track.open_run(client, "experiment", "job-2", "job", {"seed": 2})
    assert again == run_id != other
    assert client.get_run(run_id).info.status == "RUNNING"
    assert client.get_run(run_id).data.params == {"seed": "1", "data.train": "a"}


def test_no_step_is_logged_twice(client: MlflowClient, run_id: str) -> None:
    first = track.MetricLog(client.tracking_uri, run_id)
    for step in range(1, 6):
        first.log(step, {"loss": 10.0 - step})
    first.log(5, {"bleu": 1.0})
    first.close()
    # The process died after step 5 and goes on from a checkpoint of step 3.
    second = track.MetricLog(client.tracking_uri, run_id)
    for step in range(4, 8):
        second.log(step, {"loss": 10.0 - step})
    second.log(7, {"bleu": 2.0})
    second.close()
    assert history(client, run_id, "loss") == [(step, 10.0 - step) for step in range(1, 8)]
    assert history(client, run_id, "bleu") == [(5, 1.0), (7, 2.0)]


def test_a_store_that_is_away_delays_metrics_but_not_training(
    client: MlflowClient, run_id: str, tmp_path: Path
) -> None:
    log = track.MetricLog(client.tracking_uri, run_id)
    with sqlite3.connect(tmp_path / "mlflow.db") as lock:
        lock.execute("BEGIN EXCLUSIVE")
        started = time.monotonic()
        for step in range(1, 2001):
            log.log(step, {"loss": float(step)})
        assert time.monotonic() - started < 1.0
        with pytest.raises(TimeoutError, match="did not take the last metrics"):
            log.close(timeout=7)  # longer than SQLite itself waits for the lock
        lock.rollback()
    log.close(timeout=60)
    steps = [step for step, _ in history(client, run_id, "loss")]
    assert sorted(steps) == list(range(1, 2001))


def test_a_server_that_does_not_answer_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    client = track.connect("http://127.0.0.1:9")
    with pytest.raises(RequestError, match=r"127\.0\.0\.1:9.*does not answer.*MLFLOW_TRACKING_URI"):
        track.find_run(client, "experiment", "job")


def test_attention_and_samples_and_curves_are_artifacts(client: MlflowClient, run_id: str) -> None:
    class Looker:
        def attention(self, source: str, target: str) -> tuple[list[str], list[str], torch.Tensor]:
            return source.split(), target.split(), torch.full((2, 4, 3, 2), 0.5)

    samples = [track.Sample("ein Hund", "a dog", "a dog </s>")]
    log = track.MetricLog(client.tracking_uri, run_id)
    log.log(1, {"train/loss": 1.0})
    log.close()
    track.log_samples(client, run_id, samples)
    track.log_attention(client, run_id, Looker(), samples)  # type: ignore[arg-type]
    track.log_curves(client, run_id, ["train/loss", "never/logged"])
    paths = {
        entry.path
        for folder in (None, "attention/sentence-1")
        for entry in client.list_artifacts(run_id, folder)
    }
    assert {"samples.json", "curves.png", "attention/sentence-1/layer-2.png"} <= paths
