"""One job is one run, however often it is opened; what is written there may be written twice."""

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow.tracking import MlflowClient

from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.request.model_uri import tracking_uri
from heliograph.pipeline.request.recipe_file import parse_recipe
from heliograph.pipeline.runs import track
from heliograph.pipeline.tracking.server import connect


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite store without anything in it: MLflow takes seconds to make one."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def client(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    return connect(tracking_uri())


@pytest.fixture
def run_id(client: MlflowClient) -> str:
    return track.open_run(client, "experiment", "job-1", "job", {"seed": 1, "data": {"train": "a"}})


def test_the_store_is_beside_the_command(client: MlflowClient, run_id: str, tmp_path: Path) -> None:
    client.log_text(run_id, "x", "x.txt")
    assert (tmp_path / "mlflow.db").is_file()
    assert list((tmp_path / "mlartifacts").rglob("x.txt"))
    assert not (tmp_path / "mlruns").exists()


def test_a_job_started_again_continues_its_run(client: MlflowClient, run_id: str) -> None:
    client.set_terminated(run_id, "FAILED")
    again = track.open_run(client, "experiment", "job-1", "job", {"seed": 1})
    other = track.open_run(client, "experiment", "job-2", "job", {"seed": 2})
    assert again == run_id != other
    assert client.get_run(run_id).info.status == "RUNNING"
    assert client.get_run(run_id).data.params == {"seed": "1", "data.train": "a"}


def test_a_run_that_was_opened_by_half_gets_its_parameters(client: MlflowClient) -> None:
    run_id = track.open_run(
        client, "experiment", "job-1", "job", {}
    )  # cut off after the first call
    assert track.open_run(client, "experiment", "job-1", "job", {"seed": 1}) == run_id
    assert client.get_run(run_id).data.params == {"seed": "1"}


def test_a_run_s_start_stays_when_it_is_continued(client: MlflowClient, run_id: str) -> None:
    started = track.run_started(client, run_id)
    assert started == pytest.approx(time.time(), abs=60)
    client.set_terminated(run_id, "FAILED")
    track.open_run(client, "experiment", "job-1", "job", {"seed": 1})
    assert track.run_started(client, run_id) == started


def test_a_deleted_experiment_is_named_with_the_way_back(client: MlflowClient) -> None:
    """Before anything is prepared (issue 15, 14)."""
    number = client.create_experiment("gone")
    client.delete_experiment(number)
    with pytest.raises(
        RequestError, match=rf"track\.experiment 'gone' was deleted.*restore .*-id {number}\b"
    ):
        track.find_job(client, "gone", "job-1")


def test_an_experiment_that_another_job_makes_meanwhile_is_used(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_late(client: MlflowClient, name: str) -> str:
        client.create_experiment(name)
        return str(client.create_experiment(name))

    monkeypatch.setattr("heliograph.pipeline.runs.track.create_experiment", too_late)
    run_id = track.open_run(client, "crowded", "job-1", "job", {})
    experiment = client.get_experiment_by_name("crowded")
    assert client.get_run(run_id).info.experiment_id == experiment.experiment_id


def test_the_experiment_is_the_recipe_s_then_the_variable_s(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = parse_recipe(
        {"name": "a", "data": {"train": "a", "validation": "a"}, "train": {"steps": 1}}
    )
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    assert track.with_experiment(recipe)[1] == "heliograph"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "from the platform")
    completed, name = track.with_experiment(recipe)
    assert completed.track.experiment == name == "from the platform"
    assert completed.job_id == recipe.job_id
    asked = recipe.model_copy(
        update={"track": recipe.track.model_copy(update={"experiment": "own"})}
    )
    assert track.with_experiment(asked)[1] == "own"


def test_a_job_begun_anew_where_the_store_knows_none_has_the_next_name() -> None:
    assert [track.next_job(name) for name in ("a-12", "a-12.2", "a-12.9")] == [
        "a-12.2", "a-12.3", "a-12.10",
    ]  # fmt: skip


def test_a_user_without_a_name(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that is given a number (issue 15, 16)."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 54321)
    run_id = track.open_run(client, "experiment", "job-7", "job", {})
    assert client.get_run(run_id).data.tags["mlflow.user"] == "54321"


def test_a_job_begun_anew_has_a_run_and_a_name_of_its_own(client: MlflowClient) -> None:
    def find(**asked: Any) -> tuple[str, str | None]:
        return track.find_job(client, "experiment", "job-1", **asked)

    assert find() == ("job-1", None)
    first = track.open_run(client, "experiment", "job-1", "job", {})
    track.open_run(client, "experiment", "job-12", "job", {})  # of another job
    assert find() == ("job-1", first)
    assert find(new=True) == ("job-1.2", None)
    second = track.open_run(client, "experiment", "job-1.2", "job", {})
    assert find() == ("job-1.2", second)
    assert find(new=True) == ("job-1.3", None)
    assert find(run_id=first) == ("job-1", first)
    with pytest.raises(RequestError, match=rf"'other' is no run of job job-1; valid: {first}, "):
        find(run_id="other")


def test_attention_and_samples_and_curves_are_artifacts(client: MlflowClient, run_id: str) -> None:
    class Looker:
        def attention(
            self, source: str, target: str, first: int
        ) -> tuple[list[str], list[str], torch.Tensor]:
            assert first == track.PICTURED_TOKENS
            return source.split(), target.split(), torch.full((2, 4, 3, 2), 0.5)

    samples = [track.Sample("ein Hund", "a dog", "a dog </s>")]
    client.log_metric(run_id, "train/loss", 1.0, step=1)
    track.log_samples(client, run_id, samples)
    track.log_attention(client, run_id, Looker(), samples)  # type: ignore[arg-type]
    track.log_curves(client, run_id, ["train/loss", "never/logged"])
    paths = {
        entry.path
        for folder in (None, "attention/sentence-1")
        for entry in client.list_artifacts(run_id, folder)
    }
    assert {"samples.json", "curves.png", "attention/sentence-1/layer-2.png"} <= paths


def test_a_second_attempt_does_not_lengthen_the_table_of_samples(
    client: MlflowClient, run_id: str
) -> None:
    samples = [track.Sample("ein Hund", "a dog", "a dög"), track.Sample("zwei", "two", "to")]
    for _ in range(2):
        track.log_samples(client, run_id, samples)
    experiment = client.get_run(run_id).info.experiment_id
    table = client.load_table(experiment, "samples.json", run_ids=[run_id])
    assert table.to_dict("records") == [vars(sample) for sample in samples]
