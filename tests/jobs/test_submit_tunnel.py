"""The way to a cluster is cut at any request, and nothing comes of it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from heliograph.jobs.logs import logs
from heliograph.jobs.status import status
from heliograph.jobs.stop import stop
from heliograph.jobs.submit import submit
from heliograph.pipeline.cluster import job_server as module
from heliograph.pipeline.cluster.job_server import JobServer
from tests.ray_jobs import job_server, put_stand_in, result_of, run, submit_from
from tests.tunnel import Tunnel, open_tunnel


@pytest.fixture(scope="module")
def server(ray_cluster: None) -> Iterator[JobServer]:
    with job_server() as server:
        yield server


@pytest.fixture
def tunnel(server: JobServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tunnel]:
    """To the tests' Ray, from a folder whose `evaluate` does as it is told."""
    monkeypatch.setattr(module, "PAUSE", 0.1)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", server.get_address())  # which `connect` changes
    folder = put_stand_in(submit_from(tmp_path, monkeypatch))
    (folder / "new").write_text(str(folder))  # a package that the cluster does not have yet
    with open_tunnel(server.get_address()) as tunnel:
        yield tunnel


@pytest.mark.parametrize("passed", [False, True], ids=["request lost", "answer lost"])
def test_a_job_is_submitted_once(server: JobServer, tunnel: Tunnel, passed: bool) -> None:
    """Whichever of the requests, or of their answers, is lost."""
    before = names(server)
    # The versions of `connect` come first: nobody there is a mistake.
    tunnel.at("GET /api/version", lambda: None, passed=False)
    tunnel.at("GET /api/version", lambda: None, passed=False)
    requests = ["GET /api/version", "GET /api/jobs/ ", "GET /api/packages", "PUT /api/packages"]
    for request in [*requests, "POST /api/jobs/ "]:
        tunnel.at(request, passed=passed)
    done = run(submit, "--address", tunnel.url, "evaluate", "3")
    assert done.exit_code == 3, done.stderr
    assert (tunnel.planned, tunnel.cuts) == ([], 5)
    [job] = names(server) - before
    assert result_of(done)["job"] == job
    assert done.stderr.count("the job server does not answer") == 5
    assert f"the job server does not answer about job {job} (" in done.stderr
    assert f"job {job}: evaluate 3" in done.stderr


def names(server: JobServer) -> set[str]:
    return {str(job.submission_id) for job in server.list_jobs()}


def test_a_name_that_someone_took_meanwhile_is_theirs(server: JobServer, tunnel: Tunnel) -> None:
    """Also when our own request is repeated: the metadata say whose job it is."""
    number = max(
        (int(EVALUATES.sub("", each)) for each in names(server) if EVALUATES.match(each)), default=0
    )
    theirs = f"evaluate-{number + 1}"

    def be_faster() -> None:
        server.submit_job(submission_id=theirs, entrypoint="true")
        tunnel.cut_for_a_moment()

    tunnel.at("POST /api/jobs/ ", be_faster, passed=False)
    done = run(submit, "--address", tunnel.url, "evaluate", "3")
    assert done.exit_code == 3, done.stderr
    assert result_of(done)["job"] == f"evaluate-{number + 2}"
    assert server.get_job_info(theirs).entrypoint == "true"


EVALUATES = re.compile(r"^evaluate-(?=\d+$)")


def test_a_job_is_followed_to_its_end(tunnel: Tunnel, tmp_path: Path) -> None:
    """Cut off in its log, and then at what asks how it is."""
    end = tmp_path / "end"

    def cut_and_go_on() -> None:
        tunnel.cut_for_a_moment()
        end.touch()

    job = start(tunnel, str(end))
    tunnel.at(f"GET /api/jobs/{job} ", lambda: None, passed=False)  # whether there is such a job
    tunnel.at(f"GET /api/jobs/{job}/logs/tail ", passed=True)
    tunnel.at(f"GET /api/jobs/{job} ", cut_and_go_on, passed=True)
    tunnel.at(f"GET /api/jobs/{job}/logs ", passed=True)
    done = run(logs, job, "--follow", "--address", tunnel.url)
    assert done.exit_code == 0, done.stderr
    assert (tunnel.planned, tunnel.cuts) == ([], 3)
    assert re.findall(r"^(?:ran|released).*", done.stderr, re.MULTILINE) == [
        f"ran {end}",
        "released",
    ]


def start(tunnel: Tunnel, model: str) -> str:
    return str(
        result_of(run(submit, "--detach", "--address", tunnel.url, "evaluate", model))["job"]
    )


@pytest.mark.parametrize("passed", [False, True], ids=["request lost", "answer lost"])
def test_a_job_is_stopped(server: JobServer, tunnel: Tunnel, passed: bool) -> None:
    job = start(tunnel, "wait")
    tunnel.at(f"GET /api/jobs/{job} ", passed=passed)
    tunnel.at(f"POST /api/jobs/{job}/stop ", passed=passed)
    done = run(stop, job, "--address", tunnel.url)
    assert done.exit_code == 0, done.stderr
    assert (tunnel.planned, tunnel.cuts) == ([], 2)
    assert result_of(done)["status"] == server.get_job_info(job).status == "STOPPED"


def test_jobs_are_listed(tunnel: Tunnel) -> None:
    tunnel.at("GET /api/jobs/ ", passed=True)
    done: Any = run(status, "--address", tunnel.url)
    assert done.exit_code == 0, done.stderr
    assert result_of(done)["jobs"]
    assert tunnel.planned == []
