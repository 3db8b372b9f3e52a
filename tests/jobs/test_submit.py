"""Jobs on a real Ray: their logs come here whole, and their exit codes are ours."""

import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import jobs.submit
from jobs.command import application
from jobs.submit import (
    PASSED_ON,
    LogWriter,
    check_request,
    connect,
    exit_code,
    follow,
    runtime_environment,
    submit,
)
from pipeline.errors import RequestError
from tests.jobs.conftest import ROOT

PYTHON = shlex.quote(sys.executable)


@pytest.fixture(scope="module")
def address(ray_cluster: None) -> Iterator[str]:
    """The job server of the tests' Ray, once it takes jobs: its agent starts after Ray."""
    from ray._private.worker import get_dashboard_url

    before = os.environ.get("RAY_API_SERVER_ADDRESS")
    address = f"http://{get_dashboard_url()}"
    client = connect(address)
    for _ in range(60):
        try:
            client.submit_job(entrypoint="true")
            break
        except RuntimeError:
            time.sleep(0.5)
    yield address
    os.environ.pop("RAY_API_SERVER_ADDRESS", None)
    if before is not None:
        os.environ["RAY_API_SERVER_ADDRESS"] = before


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to submit from."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(
        "name: tiny\ndata: {train: nowhere.parquet, validation: nowhere.parquet}\n"
        "train: {steps: 2}\nstorage: /tmp\n"
    )
    return tmp_path


def test_logs_and_exit_codes(address: str, folder: Path) -> None:
    """Four jobs at once: success, the exit code of a gate, a signal, and one that is stopped."""
    (folder / "mlflow.db").write_text("not for the cluster")
    print_lines = f"{PYTHON} -c 'for n in range(2000): print(n, \"ü\")'"
    client = connect(address)
    jobs = [
        client.submit_job(entrypoint=entrypoint, runtime_env=runtime_environment({}))
        for entrypoint in (f"{print_lines}; ls", "exit 3", "kill -9 $$", "sleep 600")
    ]
    client.stop_job(jobs[3])
    logs: list[list[str]] = [[] for _ in jobs]
    ends = [follow(client, job, log.append, pause=0.2) for job, log in zip(jobs, logs, strict=True)]
    assert [exit_code(details) for details in ends] == [0, 3, 128 + 9, 1]
    lines = "".join(logs[0]).splitlines()
    assert lines[-2001:] == [*(f"{number} ü" for number in range(2000)), "recipe.yaml"]


@pytest.mark.usefixtures("folder")
def test_a_mistake_on_the_cluster_is_exit_code_2(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What only the cluster can see, a file that it does not have, ends like a mistake here."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(jobs.submit, "PASSED_ON", (*PASSED_ON, "PATH", "PYTHONPATH"))
    words = ["train", "recipe.yaml", "name=a b", "--address", address, "--json"]
    done = CliRunner().invoke(application(submit), words)
    assert done.exit_code == 2, "here: the name is wrong"
    assert "name: 'a b'" in done.stderr

    words[2] = "track.experiment=it's here"
    done = CliRunner().invoke(application(submit), words)
    assert "heliograph: error: " in done.stderr
    assert "nowhere.parquet" in done.stderr
    assert "track.experiment=it" in done.stderr
    assert done.exit_code == 2, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["status"], result["exit_code"], result["result"]) == ("FAILED", 2, None)
    assert result["job"] in done.stderr


def test_the_address_that_was_typed_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:2")
    with pytest.raises(RequestError, match=r"no Ray job server answers at http://127\.0\.0\.1:1;"):
        connect("http://127.0.0.1:1")


def test_secrets_travel_in_the_environment_only() -> None:
    environment = {"MLFLOW_TRACKING_PASSWORD": "s3cret", "HOME": "/root", "RAY_AUTH_MODE": "token"}
    sent = runtime_environment(environment)
    assert sent["env_vars"] == {"MLFLOW_TRACKING_PASSWORD": "s3cret"}


@given(st.lists(st.text(max_size=6), max_size=6), st.data())
def test_the_log_is_written_once_wherever_it_breaks_off(
    chunks: list[str], data: st.DataObject
) -> None:
    """However often the stream breaks off and starts again at the beginning, no character is
    doubled or lost."""
    whole = "".join(chunks)
    client = BreakingClient(chunks, lambda: data.draw(st.integers(0, len(chunks))))
    written: list[str] = []
    follow(client, "job", written.append, pause=0)  # type: ignore[arg-type]
    assert "".join(written) == whole


class BreakingClient:
    """A job server whose log stream ends early and sometimes with an error."""

    def __init__(self, chunks: list[str], stop_after: Callable[[], int]) -> None:
        self.chunks, self.stop_after, self.asked = chunks, stop_after, 0

    async def tail_job_logs(self, _job: str):  # type: ignore[no-untyped-def]
        for chunk in self.chunks[: self.stop_after()]:
            yield chunk
        if self.asked % 2:
            raise RuntimeError("WebSocket connection closed unexpectedly")

    def get_job_info(self, _job: str) -> "Details":
        self.asked += 1
        return Details(Status("SUCCEEDED" if self.asked == 3 else "RUNNING"))

    def get_job_logs(self, _job: str) -> str:
        return "".join(self.chunks)


class Status(str):
    def is_terminal(self) -> bool:
        return self == "SUCCEEDED"


@dataclass
class Details:
    status: Status


def test_the_result_is_the_last_line_of_the_log() -> None:
    with open(os.devnull, "w") as nowhere:
        log = LogWriter(nowhere)
        assert log.result() is None
        for text in ("step 3\n", '{"bleu": 3', "9.5}\n"):
            log.write(text)
        assert log.result() == {"bleu": 39.5}
        log.write("and more\n")
        assert log.result() is None


@pytest.mark.usefixtures("folder")
def test_a_relative_storage_is_remarked_on(capsys: pytest.CaptureFixture[str]) -> None:
    check_request("train", ["recipe.yaml", "storage=here"])
    assert "storage 'here' is relative" in capsys.readouterr().err
