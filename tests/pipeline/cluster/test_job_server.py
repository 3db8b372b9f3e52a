"""A job's log is shown once and whole, however often its stream breaks off."""

import asyncio
import io
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import ray
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from heliograph.pipeline.cluster import job_server
from heliograph.pipeline.cluster.job_server import Log, connect, follow
from heliograph.pipeline.cluster.sealed import ray_token
from heliograph.pipeline.request.errors import JobStopped, RequestError
from tests.waiting import DEADLINE


@given(st.lists(st.text(max_size=6), max_size=6), st.data())
def test_the_log_is_shown_once_wherever_it_breaks_off(
    chunks: list[str], data: st.DataObject
) -> None:
    """However often the stream breaks off and starts again at the beginning, no character is
    doubled or lost."""
    shown = io.StringIO(newline="")
    server: Any = BreakingServer(chunks, lambda: data.draw(st.integers(0, len(chunks))))
    follow(server, "job", Log(shown), pause=0)
    assert shown.getvalue() == "".join(chunks)


class BreakingServer:
    """A job server whose log stream ends early and sometimes with an error."""

    def __init__(self, chunks: list[str], stop_after: Callable[[], int]) -> None:
        self.chunks, self.stop_after, self.asked = chunks, stop_after, 0

    async def tail_job_logs(self, _job: str):  # type: ignore[no-untyped-def]  # as Ray's own
        for chunk in self.chunks[: self.stop_after()]:
            yield chunk
        if self.asked % 2:
            raise RuntimeError("WebSocket connection closed unexpectedly")

    def get_job_info(self, _job: str) -> "Details":
        self.asked += 1
        return Details(Status("SUCCEEDED" if self.asked == 4 else "RUNNING"))

    def get_job_logs(self, _job: str) -> str:
        return "".join(self.chunks)


class Status(str):
    def is_terminal(self) -> bool:
        return self == "SUCCEEDED"


@dataclass
class Details:
    status: Status


class LostServer(BreakingServer):
    """One that has forgotten the job."""

    def __init__(self, error: Exception) -> None:
        super().__init__([], lambda: 0)
        self.error = error

    def get_job_info(self, _job: str) -> "Details":
        raise self.error

    def list_jobs(self) -> list[Any]:
        return []


class HttpServer:
    """A job server in a thread: its first log stream falls silent in the middle, as a connection
    does that a router forgot, and its job ends after the second."""

    LINES = ("one\n", "two\n", "three\n")

    def __init__(self, token: str) -> None:
        self.token, self.streams, self.url = token, 0, ""
        self.fails: list[int] = []
        """Statuses of the next answers."""
        self.lost = False
        """The log, with its node."""
        self._started = threading.Event()
        threading.Thread(target=asyncio.run, args=(self._serve(),), daemon=True).start()
        assert self._started.wait(DEADLINE)

    async def _serve(self) -> None:
        app = web.Application(middlewares=[self._check_token])
        app.router.add_get("/api/version", self._version)
        app.router.add_get("/api/jobs/job-1", self._details)
        app.router.add_get("/api/jobs/job-1/logs", self._log)
        app.router.add_get("/api/jobs/job-1/logs/tail", self._stream)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._started.set()
        await asyncio.Event().wait()

    @web.middleware
    async def _check_token(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.Response(status=401, text="Unauthorized")
        if self.fails:
            return web.Response(status=self.fails.pop(), text="away")
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"ray_version": ray.__version__})

    async def _details(self, _: web.Request) -> web.Response:
        status = "SUCCEEDED" if self.streams > 1 else "RUNNING"
        kind = {"type": "SUBMISSION", "submission_id": "job-1", "entrypoint": "true"}
        return web.json_response(kind | {"status": status})

    async def _log(self, _: web.Request) -> web.Response:
        if self.lost:
            return web.Response(status=500, text="Traceback: Cannot connect to host 10.0.0.1:52365")
        return web.json_response({"logs": "".join(self.LINES)})

    async def _stream(self, request: web.Request) -> web.WebSocketResponse:
        self.streams += 1
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        for line in self.LINES[: self.streams]:
            await socket.send_str(line)
        if self.streams == 1:
            await asyncio.sleep(3600)  # and nobody answers a ping
        return socket


def test_a_connection_that_died_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_server, "SECONDS_TO_ANSWER", 0.5)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")  # which `connect` changes
    served = HttpServer(ray_token())
    server, shown = connect(served.url, print), io.StringIO()
    assert not server.takes_jobs_from_anyone()
    details = follow(server, "job-1", Log(shown), pause=0.1)
    assert (details.status, served.streams) == ("SUCCEEDED", 2)
    assert shown.getvalue() == "one\ntwo\nthree\n"
    served.token = "another"
    with pytest.raises(RequestError, match="wants its own token"):
        connect(served.url, print)


@pytest.fixture
def http_server(monkeypatch: pytest.MonkeyPatch) -> HttpServer:
    monkeypatch.setattr(job_server, "PAUSE", 0.01)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")  # which `connect` changes
    return HttpServer(ray_token())


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_server_that_is_away_is_asked_again(http_server: HttpServer, status: int) -> None:
    """Whether nobody is behind a proxy, or Ray's own store is away."""
    said: list[str] = []
    server = connect(http_server.url, said.append)
    http_server.fails = [status] * 3
    assert server.get_job_info("job-1").status == "RUNNING"
    assert said == [
        f"the job server does not answer about job job-1 (status {status}: away); trying again"
    ]


def test_a_server_that_is_away_for_long_is_given_up(
    http_server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_server, "SECONDS_AWAY", 0.1)
    said: list[str] = []
    server = connect(http_server.url, said.append)
    http_server.fails = [503] * 10_000
    where = f"--address {http_server.url}"
    with pytest.raises(
        ConnectionError,
        match=f"job-1 may run: `heliograph logs job-1 --follow {where}` follows it, "
        f"`heliograph stop job-1 {where}` ends it",
    ):
        follow(server, "job-1", Log(io.StringIO()))
    assert len(said) == 1


def test_the_first_connection_is_not_waited_for(http_server: HttpServer) -> None:
    http_server.fails = [503] * 10_000
    with pytest.raises(RequestError, match="no Ray job server answers at http"):
        connect(http_server.url, print)


def test_a_log_that_is_lost_is_not_waited_for(http_server: HttpServer) -> None:
    """The job has ended, and how is known."""
    said: list[str] = []
    server, shown = connect(http_server.url, said.append), io.StringIO()
    http_server.streams, http_server.lost = 1, True
    details = follow(server, "job-1", Log(shown))
    assert details.status == "SUCCEEDED"
    assert shown.getvalue() == "one\ntwo\n"
    assert len(said) == 1
    assert said[0].startswith("the rest of the log of job job-1 is lost (Request failed with ")
    assert "Cannot connect to host" in said[0]


def test_a_cluster_that_was_started_anew_has_no_such_job() -> None:
    server: Any = LostServer(RuntimeError("Request failed with status code 404: no such job"))
    with pytest.raises(JobStopped, match=r"'job-1' is not on this cluster; there: none: .* anew"):
        follow(server, "job-1", Log(io.StringIO()), pause=0)


def test_the_result_is_the_last_line_of_the_log() -> None:
    log = Log(io.StringIO())
    assert log.result() is None
    for text in ("step 3\n", '{"bleu": 3', "9.5}\n"):
        log.show(text)
    assert log.result() == {"bleu": 39.5}
    log.show("and more\n")
    assert log.result() is None


def test_the_address_that_was_typed_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:2")
    with pytest.raises(RequestError, match=r"no Ray job server answers at http://127\.0\.0\.1:1;"):
        connect("http://127.0.0.1:1", print)


@pytest.mark.faults
def test_a_cluster_that_is_gone_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its address may be a variable's, or what Ray last started here; Ray asks it for long."""
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(RequestError, match="no Ray job server answers at RAY_API_SERVER_ADDRESS, "):
        connect(None, print)
