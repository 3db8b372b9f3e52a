"""`heliograph doctor` as a user runs it, and its exit codes."""

import json
from collections.abc import Callable

import pytest
from typer.testing import CliRunner

from heliograph.jobs.command import application
from heliograph.jobs.doctor import doctor
from tests.jobs.conftest import Forked
from tests.tracking_server import Door


@pytest.mark.usefixtures("ray_cluster")
def test_exit_codes(
    door: Door, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", door.url)
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))
    app = application(doctor)
    done = CliRunner().invoke(app, ["--json", "--storage", "here"])
    checks = json.loads(done.stdout.splitlines()[-1])["checks"]
    failed = {check["name"] for check in checks if check["status"] == "fail"}
    assert failed <= {"disks"}, done.stdout
    assert done.exit_code == (1 if failed else 0)
    door.mode = "refuses"
    done = CliRunner().invoke(app, [])
    assert done.exit_code == 1
    assert f"fail  tracking server: {door.url} does not answer" in done.stdout
    assert "→ start it, or correct MLFLOW_TRACKING_URI" in done.stdout


def test_a_mistake_in_the_recipe(heliograph: Callable[..., Forked]) -> None:
    done = heliograph("doctor", "recipe.yaml", "cluster.workerz=2")
    assert done.exit_code == 2
    assert "workers" in done.stderr
