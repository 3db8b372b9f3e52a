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
    follow(server, "job", Log(shown), lambda _: None, pause=0)
    assert shown.getvalue() == "".join(chunks)


class BreakingServer:
    """A job server whose log stream ends early and sometimes with an error, and which does not
    always answer."""

    def __init__(self, chunks: list[str], stop_after: Callable[[], int]) -> None:
        self.chunks, self.stop_after, self.asked = chunks, stop_after, 0

    async def tail_job_logs(self, _job: str):  # type: ignore[no-untyped-def]  # as Ray's own
        for chunk in self.chunks[: self.stop_after()]:
            yield chunk
        if self.asked % 2:
            raise RuntimeError("WebSocket connection closed unexpectedly")

    def get_job_info(self, _job: str) -> "Details":
        self.asked += 1
        if self.asked == 2:
            raise ConnectionError("no route to host")
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
    """One that does not answer any more, or has forgotten the job."""

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
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"ray_version": ray.__version__})

    async def _details(self, _: web.Request) -> web.Response:
        status = "SUCCEEDED" if self.streams > 1 else "RUNNING"
        kind = {"type": "SUBMISSION", "submission_id": "job-1", "entrypoint": "true"}
        return web.json_response(kind | {"status": status})

    async def _log(self, _: web.Request) -> web.Response:
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
    server, shown = connect(served.url), io.StringIO()
    assert not server.takes_jobs_from_anyone()
    details = follow(server, "job-1", Log(shown), lambda _: None, pause=0.1)
    assert (details.status, served.streams) == ("SUCCEEDED", 2)
    assert shown.getvalue() == "one\ntwo\nthree\n"
    served.token = "another"
    with pytest.raises(RequestError, match="wants its own token"):
        connect(served.url)


def test_a_server_that_is_away_for_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_server, "SECONDS_AWAY", 0.1)
    said: list[str] = []
    server: Any = LostServer(OSError("no route to host"))
    with pytest.raises(ConnectionError, match="`heliograph logs job-1 --follow` follows it"):
        follow(server, "job-1", Log(io.StringIO()), said.append, pause=0.02)
    assert said == ["the job server does not answer (no route to host); trying again"]


def test_a_cluster_that_was_started_anew_has_no_such_job() -> None:
    server: Any = LostServer(RuntimeError("Request failed with status code 404: no such job"))
    with pytest.raises(JobStopped, match=r"'job-1' is not on this cluster; there: none: .* anew"):
        follow(server, "job-1", Log(io.StringIO()), lambda _: None, pause=0)


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
        connect("http://127.0.0.1:1")
