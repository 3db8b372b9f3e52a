"""`heliograph sync`: what waits on disk arrives, also when the job has long ended."""

import json
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from heliograph.pipeline.request.recipe_file import load_recipe
from heliograph.pipeline.tracking.events import log_event
from heliograph.pipeline.tracking.metric_log import MetricLog
from heliograph.pipeline.tracking.server import patiently
from heliograph.pipeline.tracking.sync import Delivered, deliver_job
from tests.jobs.conftest import MINIMAL_RECIPE, Finished, run_command
from tests.tracking_server import Door, MlflowServer
from tests.waiting import DEADLINE, abandon


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(MINIMAL_RECIPE)
    return tmp_path


def job_folder(folder: Path) -> Path:
    recipe = load_recipe(folder / "recipe.yaml", [])
    return folder / recipe.storage / "jobs" / recipe.job_id


def sync(folder: Path, uri: str, *words: str) -> Finished:
    tracked = {"MLFLOW_TRACKING_URI": uri}
    return run_command(["-m", "heliograph.jobs.sync", "recipe.yaml", *words], folder, tracked)


def leave_metrics(door: Door, job: Path, run_id: str) -> None:
    """As a job does that ends while its server is away."""
    door.mode = "refuses"
    for name, keys in (("rank-0", ("train/loss", "train/rate")), ("system-node", ("system/cpu",))):
        log = MetricLog(door.url, run_id, str(job / "metrics" / name))
        for step in range(1, 51):
            log.log(step, {key: float(step) for key in keys})
        abandon(log)
    log_event(str(job / "events"), run_id, "restart", 30, "a node was lost")


def test_sync_delivers_what_a_job_left_and_then_there_is_nothing(
    server: MlflowServer, door: Door, folder: Path
) -> None:
    client = MlflowClient(server.url)
    run_id = client.create_run("0").info.run_id
    leave_metrics(door, job_folder(folder), run_id)

    away = sync(folder, door.url)
    assert away.exit_code == 1
    assert f"tracking server '{door.url}' does not answer" in away.stderr
    assert "0 metrics arrived, the rest stays" in away.stderr

    door.mode = "open"
    done = sync(folder, door.url, "--json")
    assert done.exit_code == 0, done.stderr
    assert "150 metrics of 100 steps and 1 events arrived" in done.stdout
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["metrics"], result["steps"], result["events"]) == (150, 100, 1)
    for key in ("train/loss", "train/rate", "system/cpu"):
        history = client.get_metric_history(run_id, key)
        assert [(m.step, m.value) for m in history] == [(s, float(s)) for s in range(1, 51)]
    assert [m.step for m in client.get_metric_history(run_id, "events/restart")] == [30]

    again = sync(folder, door.url, "--json")
    assert again.exit_code == 0
    assert json.loads(again.stdout.splitlines()[-1])["metrics"] == 0


def test_a_job_without_anything_on_disk_needs_no_server(folder: Path) -> None:
    done = sync(folder, "http://127.0.0.1:9")
    assert done.exit_code == 0, done.stderr
    name = job_folder(folder).name
    assert done.stdout == f"nothing waits in the folders of job {name}: none\n"
    job_folder(folder).mkdir(parents=True)
    (job_folder(folder).parent / f"{name}.2").mkdir()  # begun anew by train --new
    done = sync(folder, "http://127.0.0.1:9")
    folders = ", ".join(f"{job_folder(folder)}{suffix}" for suffix in ("", ".2"))
    assert done.stdout == f"nothing waits in the folders of job {name}: {folders}\n"


def test_a_server_that_does_not_know_the_run_says_so(
    server: MlflowServer, door: Door, folder: Path
) -> None:
    leave_metrics(door, job_folder(folder), "0" * 32)
    door.mode = "open"
    done = sync(folder, door.url)
    assert done.exit_code == 1
    assert "does not take them" in done.stderr
    assert "not found" in done.stderr


def test_a_run_that_is_not_known_hinders_no_other(
    server: MlflowServer, door: Door, folder: Path
) -> None:
    """As after the store was made anew, or a run deleted (issue 15, 15)."""
    client = MlflowClient(server.url)
    run_id = client.create_run("0").info.run_id
    leave_metrics(door, job_folder(folder), "0" * 32)
    leave_metrics(door, job_folder(folder), run_id)
    door.mode = "open"
    done = sync(folder, door.url)
    assert done.exit_code == 1
    assert f"does not take them (run {'0' * 32}: " in done.stderr
    assert "150 metrics arrived, the rest stays" in done.stderr
    assert len(client.get_metric_history(run_id, "train/loss")) == 50


def test_at_a_job_s_end_a_server_that_is_away_is_waited_for(
    server: MlflowServer, door: Door, folder: Path
) -> None:
    """Its absence was taken for a refusal (issue 15, 15)."""
    run_id = MlflowClient(server.url).create_run("0").info.run_id
    leave_metrics(door, job_folder(folder), run_id)
    delivered, said = Delivered(), list[str]()

    def say(message: str) -> None:
        said.append(message)
        door.mode = "open"

    job = str(job_folder(folder))
    patiently(lambda: deliver_job(door.url, job, delivered), say, "", DEADLINE)
    assert len(said) == 1
    assert (delivered.metrics, delivered.refused) == (150, ())
