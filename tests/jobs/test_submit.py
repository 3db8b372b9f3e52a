"""Jobs on a real Ray: their logs come here whole, their exit codes are ours, and what is secret
stays so."""

import hashlib
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from ray._private.authentication.http_token_authentication import get_auth_headers_if_auth_enabled
from typer.testing import CliRunner

from heliograph.jobs.command import application
from heliograph.jobs.logs import logs
from heliograph.jobs.status import status
from heliograph.jobs.stop import stop
from heliograph.jobs.submit import check_request, exit_code, submit
from heliograph.pipeline.cluster import parcel
from heliograph.pipeline.cluster.job_server import JobServer, Log, follow
from heliograph.pipeline.cluster.job_server import submit as submit_to
from heliograph.pipeline.cluster.parcel import Parcel, pack
from heliograph.pipeline.cluster.sealed import ray_token
from heliograph.pipeline.request.errors import RequestError
from tests.ray_jobs import (
    Terminal,
    job_server,
    put_stand_in,
    result_of,
    run,
    start_submit,
    submit_from,
)
from tests.waiting import DEADLINE

SECRET = "planted-3c1f9a"


@pytest.fixture(scope="module")
def server(ray_cluster: None) -> Iterator[JobServer]:
    with job_server() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return submit_from(tmp_path, monkeypatch)


@pytest.fixture
def stand_in(folder: Path, server: JobServer) -> Path:
    return put_stand_in(folder)


def test_logs_and_exit_codes(server: JobServer, folder: Path) -> None:
    """Four jobs at once: success, the exit code of a gate, a signal, and one that is stopped."""
    (folder / "mlflow.db").write_text("not for the cluster")
    print_lines = f"{shlex.quote(sys.executable)} -c 'for n in range(2000): print(n, \"ü\")'"
    sent = pack(folder, "train", "image", {}, "").runtime_env
    jobs = [
        server.submit_job(entrypoint=entrypoint, runtime_env=sent)
        for entrypoint in (f"{print_lines}; ls", "exit 3", "kill -9 $$", "sleep 600")
    ]
    server.stop_job(jobs[3])
    shown = [StringIO() for _ in jobs]
    ends = [
        follow(server, job, Log(stream), pause=0.2) for job, stream in zip(jobs, shown, strict=True)
    ]
    assert [exit_code(details) for details in ends] == [0, 3, 128 + 9, 130]
    lines = shown[0].getvalue().splitlines()
    assert lines[-2001:] == [*(f"{number} ü" for number in range(2000)), "recipe.yaml"]


@pytest.mark.usefixtures("stand_in")
def test_a_verb_s_exit_code_is_that_of_submit() -> None:
    done = run(submit, "evaluate", "3")
    assert done.exit_code == 3, done.stderr
    result = result_of(done)
    assert re.fullmatch(r"evaluate-\d+", result["job"])
    assert (result["exit_code"], result["result"]) == (3, {"model": "3"})
    assert "ran 3" in done.stderr
    assert result_of(run(status))["jobs"][0]["exit_code"] == 3
    assert result_of(run(status, result["job"]))["command"] == "evaluate --json 3"
    log = CliRunner().invoke(application(logs), [result["job"]])
    assert "ran 3" in log.stdout
    assert run(logs, result["job"], "--follow").exit_code == 3


@pytest.mark.usefixtures("folder", "server")
def test_a_mistake_on_the_cluster_is_exit_code_2() -> None:
    """What only the cluster can see, a file that it does not have, ends like a mistake here."""
    done = run(submit, "train", "recipe.yaml", "name=a b")
    assert done.exit_code == 2, "here: the name is wrong"
    assert "name: 'a b'" in done.stderr

    done = run(submit, "train", "recipe.yaml", "track.experiment=it's here")
    assert "heliograph: error: " in done.stderr
    assert "nowhere.parquet" in done.stderr
    assert done.exit_code == 2, done.stderr
    result = result_of(done)
    assert (result["status"], result["exit_code"], result["result"]) == ("FAILED", 2, None)
    assert re.fullmatch(r"tiny-[0-9a-f]{10}-1", result["job"])
    assert f"job {result['job']}: train" in done.stderr
    for verb in (status, logs, stop):
        done = run(verb, "tiny")
        assert done.exit_code == 2
        assert "job 'tiny' is not on this cluster; there: " in done.stderr
        assert result["job"] in done.stderr


def test_while_a_job_runs_its_command_follows_it_and_others_are_refused(server: JobServer) -> None:
    sent = Parcel("code", {})

    def submit_again(entrypoint: str, sent: Parcel = sent, *, alone: bool = True) -> Any:
        return submit_to(server, "alone", entrypoint, sent, alone=alone)

    assert submit_again("sleep 600") == ("alone-1", True)
    assert submit_again("sleep 600") == ("alone-1", False)
    with pytest.raises(RequestError, match=r"alone-1 runs already, by another command \(sleep 6"):
        submit_again("sleep 601")
    with pytest.raises(RequestError, match=r"alone-1 runs already, by another code, .*stop"):
        submit_again("sleep 600", Parcel("changed", {}))
    assert submit_again("true", alone=False) == ("alone-2", True)
    assert run(logs, "alone-2", "--follow").exit_code == 0
    assert result_of(run(stop, "alone-1"))["status"] == "STOPPED"
    assert submit_again("true") == ("alone-3", True)


@pytest.mark.faults
def test_ctrl_c_leaves_the_job_running_or_stops_it(server: JobServer, stand_in: Path) -> None:
    process, _ = start_submit(stand_in, None)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(DEADLINE) == 130
    said = (stand_in / "log").read_text()
    job = re.findall(r"job (evaluate-\d+) runs on; ", said)[0]
    assert f"`heliograph logs {job} --follow` follows it, `heliograph stop {job}` ends it" in said
    assert server.get_job_info(job).status == "RUNNING"
    assert run(stop, job).exit_code == 0
    assert run(logs, job, "--follow").exit_code == 130

    terminal = Terminal()
    process, job = start_submit(stand_in, terminal)
    os.killpg(process.pid, signal.SIGINT)
    terminal.read_until("Otherwise it runs on. [y/N]:")
    terminal.type("y\n")
    assert process.wait(DEADLINE) == 130
    assert server.get_job_info(job).status == "STOPPED"


def test_a_secret_is_found_in_the_job_s_processes_and_nowhere_else(
    server: JobServer, stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    done = run(submit, "evaluate", "secret")
    digest = hashlib.sha256(SECRET.encode()).hexdigest()
    for process in ("driver", "worker"):
        assert f"{process} {digest}" in done.stderr
    found = places_that_say(server, lambda text: SECRET in text)
    assert found == []
    assert SECRET not in done.stderr + done.stdout
    # The search sees what it is shown: the sealed text is in the job API, and logs name the job.
    assert "job API" in places_that_say(server, lambda text: parcel.SEALED in text)
    job = result_of(done)["job"]
    assert any("logs" in place for place in places_that_say(server, lambda text: job in text))


def places_that_say(server: JobServer, says: Callable[[str], bool]) -> list[str]:
    """The job API, command lines, and files of Ray's session in which a text is."""
    from ray._private.worker import global_worker

    headers = get_auth_headers_if_auth_enabled({})
    api = requests.get(f"{server.get_address()}/api/jobs/", headers=headers, timeout=DEADLINE).text
    found = ["job API"] if says(api) else []
    for process in psutil.process_iter(["cmdline"]):
        if says(" ".join(process.info["cmdline"] or [])):
            found.append(f"process {process.pid}")
    for path in Path(global_worker.node.get_session_dir_path()).rglob("*"):
        if path.is_file() and says(path.read_text(encoding="utf-8", errors="replace")):
            found.append(str(path))
    return found


@pytest.mark.usefixtures("folder")
def test_what_may_surprise_on_a_cluster_is_remarked_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    check_request("train", ["recipe.yaml", "storage=here"])
    said = capsys.readouterr().err
    assert "storage 'here' is relative" in said
    assert "MLFLOW_TRACKING_URI is not set here" in said
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    check_request("train", ["recipe.yaml"])
    assert "localhost:5000: there, that is each node itself" in capsys.readouterr().err


def test_tokens(server: JobServer) -> None:
    """This Ray asks for one, and this process has it."""
    assert not server.takes_jobs_from_anyone()
    assert len(ray_token()) == 64
