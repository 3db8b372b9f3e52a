"""Whenever submit is interrupted, it says what becomes of the job, and how to go on."""

import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from heliograph.jobs.command import application
from heliograph.jobs.logs import logs
from heliograph.jobs.stop import stop
from heliograph.jobs.submit import submit
from heliograph.pipeline.cluster.job_server import JobServer
from tests.ray_jobs import (
    Terminal,
    job_server,
    put_stand_in,
    result_of,
    run,
    start_submit,
    submit_from,
)
from tests.tunnel import Tunnel, open_tunnel
from tests.waiting import DEADLINE, wait_until


@pytest.fixture(scope="module")
def server(ray_cluster: None) -> Iterator[JobServer]:
    with job_server() as server:
        yield server


@pytest.fixture
def stand_in(server: JobServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return put_stand_in(submit_from(tmp_path, monkeypatch))


@pytest.fixture
def tunnel(server: JobServer, stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tunnel]:
    """By which it is known where a command is."""
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", server.get_address())  # which `connect` changes
    with open_tunnel(server.get_address()) as tunnel:
        yield tunnel


def interrupt() -> None:
    """This process, which takes a termination for an interrupt while a command runs in it."""
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signal.SIGTERM)


def ways_on(job: str, where: str = "") -> str:
    stopping = f"`heliograph stop {job}{where}`"
    return f"`heliograph logs {job} --follow{where}` follows it, {stopping} ends it"


def test_while_the_job_is_sent(server: JobServer, tunnel: Tunnel) -> None:
    """It is there, though the answer that says so had not come."""

    def interrupt_and_answer_nothing() -> None:
        interrupt()
        tunnel.cut_for_a_moment()

    tunnel.at("POST /api/jobs/ ", interrupt_and_answer_nothing, passed=True)
    done = run(submit, "--address", tunnel.url, "evaluate", "wait")
    assert done.exit_code == 130
    [job] = re.findall(r"job (\S+) was being sent and may have been taken", done.stderr)
    where = f" --address {tunnel.url}"
    assert f"`heliograph status {job}{where}` shows whether; {ways_on(job, where)}" in done.stderr
    assert not server.get_job_info(job).status.is_terminal()
    ended = run(stop, job, "--address", server.get_address())
    assert result_of(ended)["status"] == "STOPPED"


@pytest.mark.parametrize("verb", [logs, stop])
def test_while_it_is_followed_or_stopped(server: JobServer, tunnel: Tunnel, verb: object) -> None:
    detached = run(submit, "--detach", "--address", tunnel.url, "evaluate", "wait")
    job = result_of(detached)["job"]
    where = f" --address {tunnel.url}"
    words, request, why = [job], f"POST /api/jobs/{job}/stop", "was being stopped, and may run on"
    if verb is logs:
        words, request, why = [job, "--follow"], f"GET /api/jobs/{job}/logs/tail", "runs on"
    tunnel.at(request, interrupt, passed=False)
    done = run(verb, *words, *where.split())
    assert done.exit_code == 130
    assert f"job {job} {why}; {ways_on(job, where)}" in done.stderr
    assert result_of(done)["job"] == job
    assert result_of(run(stop, job))["status"] == "STOPPED"


def test_detached_it_says_how_to_go_on(tunnel: Tunnel) -> None:
    words = ["--detach", "--address", tunnel.url, "evaluate", "0"]
    done = CliRunner().invoke(application(submit), words)
    [job] = re.findall(r"job (\S+): evaluate", done.stderr)
    assert done.stdout == ways_on(job, f" --address {tunnel.url}") + "\n"


@pytest.mark.faults
def test_after_no_and_while_it_stops(server: JobServer, tunnel: Tunnel, stand_in: Path) -> None:
    where, end = f" --address {tunnel.url}", stand_in / "end"
    for answer, why in (("n", "runs on"), ("y", "was being stopped, and may run on")):
        terminal = Terminal()
        process, job = start_submit(stand_in, terminal, str(end), where.split())
        os.killpg(process.pid, signal.SIGINT)
        terminal.read_until("Otherwise it runs on. [y/N]:")
        terminal.type(f"{answer}\n")
        if answer == "y":
            wait_until(lambda: "asked to stop" in (stand_in / "log").read_text())
            os.killpg(process.pid, signal.SIGINT)
        assert process.wait(DEADLINE) == 130
        assert f"job {job} {why}; {ways_on(job, where)}" in terminal.read_until(" ends it")
        assert server.get_job_info(job).status == "RUNNING"
        end.touch()
        run(logs, job, "--follow")
        end.unlink()
