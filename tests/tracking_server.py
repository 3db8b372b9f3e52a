"""A real `mlflow server`, and a door in front of it that can be shut in several ways."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

from tests.waiting import DEADLINE, wait_until

Mode = Literal["open", "refuses", "fails", "fails_after", "cuts", "hangs"]
"""fails: answers 500. fails_after: answers 500 although the request took effect. cuts: likewise,
and never answers. hangs: takes a request and does nothing until the mode changes."""

_STARTED = b"Application startup complete"
"""In the log, once for each process."""
SENDS_NOTICES = {
    "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": "a" * 43 + "=",
    "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
    "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
    "MLFLOW_WEBHOOK_CACHE_TTL": "1",
}
"""Variables of a server that delivers webhooks, also on this machine."""


def hold_port() -> socket.socket:
    """A port of this machine that nobody else is given while the socket is open, though its owner
    comes and goes: nothing listens at it, so who calls then is refused."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


class MlflowServer:
    """`mlflow server` in a process of its own, or several.

    Args:
        database: where it keeps everything but artifacts; None: an SQLite file in the folder.
        environment: variables for it.
        host: a name of this machine, where it listens.
    """

    def __init__(
        self,
        folder: Path,
        database: str | None = None,
        environment: Mapping[str, str] | None = None,
        workers: int = 1,
        host: str = "127.0.0.1",
    ) -> None:
        self._host = host
        self._folder = folder
        self._database = database or f"sqlite:///{folder}/server.db"
        self._environment = dict(environment or {})
        self._workers = workers
        self._held = hold_port()
        self.port: int = self._held.getsockname()[1]
        self.url = f"http://{host}:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when all its processes answer, which takes 5 to 30 seconds, or far more on a busy
        machine."""
        words = ["server", "--host", self._host, "--port", str(self.port)]
        words += ["--workers", str(self._workers)]
        words += ["--backend-store-uri", self._database]
        words += ["--artifacts-destination", str(self._folder / "artifacts")]
        path = self._folder / "log"
        with path.open("ab") as log:
            before = log.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", *words],
                cwd=self._folder,
                env=os.environ
                | {
                    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                    "MLFLOW_DISABLE_TELEMETRY": "true",
                }
                | self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(
            lambda: self._answers() and path.read_bytes()[before:].count(_STARTED) >= self._workers,
            path.read_text,
        )

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "log").read_text()
        try:
            urllib.request.urlopen(f"{self.url}/health", timeout=DEADLINE)
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """SIGKILL to all of its processes."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


class Door:
    """What clients take for the tracking server. Change `mode` at any time."""

    def __init__(self, server: MlflowServer) -> None:
        self.backend = server.url
        self.arrived: list[tuple[str, int]] = []
        """Key and step of every metric that was let through, in the order of arrival."""
        self.requests = 0
        self.lacks: str | None = None
        """Paths with this in them the server does not know, as one of an earlier release."""
        self._next: tuple[int, Mode, float | None] | None = None
        self._changed = threading.Condition()
        self._mode: Mode = "open"
        self._held = hold_port()
        self._port: int = self._held.getsockname()[1]
        self._http: _Http | None = _Http(self, self._port)
        self.url = f"http://127.0.0.1:{self._port}"

    @property
    def mode(self) -> Mode:
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        with self._changed:
            self._mode = mode
            self._changed.notify_all()
        if mode == "refuses" and self._http is not None:
            self._http.stop()
            self._http = None
        elif mode != "refuses" and self._http is None:
            self._http = _Http(self, self._port)

    def change_after(self, requests: int, mode: Mode, seconds: float | None = None) -> None:
        """Let so many through, and change the mode before the next; for so long, or for good."""
        self._next = self.requests + requests + 1, mode, seconds

    @property
    def open_again(self) -> bool:
        """After the change that was asked for."""
        return self._next is None and self.mode == "open"

    def arrive(self) -> None:
        """A request is here."""
        self.requests += 1
        if self._next is None or self.requests != self._next[0]:
            return
        _, self.mode, seconds = self._next
        if seconds is not None:
            threading.Timer(seconds, lambda: setattr(self, "mode", "open")).start()
        self._next = None

    def wait_while_hanging(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._mode != "hangs")


@contextmanager
def open_door(server: MlflowServer) -> Iterator[Door]:
    door = Door(server)
    try:
        yield door
    finally:
        door.mode = "refuses"
        door._held.close()


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, door: Door, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.door = door
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: Any) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Http

    def log_message(self, *_: Any) -> None:
        pass

    def _serve(self) -> None:
        door = self.server.door
        door.arrive()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        mode = door.mode
        if door.lacks is not None and door.lacks in self.path:
            self._answer(404, b"<h1>Not Found</h1>")
            return
        if mode == "refuses":  # it was shut before this very request
            return
        if mode == "hangs":
            door.wait_while_hanging()
            return
        if mode == "fails":
            self._answer(500, b'{"error_code": "INTERNAL_ERROR", "message": "disk on fire"}')
            return
        status, answer = self._forward(body)
        if mode == "fails_after":
            status, answer = 500, b"{}"
        if mode != "cuts":
            self._answer(status, answer)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

    def _forward(self, body: bytes) -> tuple[int, bytes]:
        headers = {key: self.headers[key] for key in ("Content-Type",) if key in self.headers}
        request = urllib.request.Request(
            self.server.door.backend + self.path, body or None, headers, method=self.command
        )
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE) as response:
                status, answer = response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        if re.search(r"runs/log-batch$", self.path):
            metrics = json.loads(body).get("metrics", [])  # parameters may come alone
            self.server.door.arrived += [(each["key"], each["step"]) for each in metrics]
        return status, answer

    def _answer(self, status: int, answer: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
