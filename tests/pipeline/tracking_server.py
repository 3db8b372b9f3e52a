"""A real `mlflow server`, and a door in front of it that can be shut in several ways."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import pytest

Mode = Literal["open", "refuses", "fails", "fails_after", "cuts", "hangs"]
"""fails: answers 500. fails_after: answers 500 although the request took effect. cuts: likewise,
and never answers. hangs: takes a request and does nothing until the mode changes."""


class MlflowServer:
    """`mlflow server` in a process of its own, over a SQLite file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers, which takes 5 to 30 seconds."""
        words = ["server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        words += ["--backend-store-uri", f"sqlite:///{self._folder}/server.db"]
        words += ["--artifacts-destination", str(self._folder / "artifacts")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", *words],
                cwd=self._folder,
                env=os.environ
                | {
                    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                    "MLFLOW_DISABLE_TELEMETRY": "true",
                },
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=5)
                return
            except OSError:
                assert self._process.poll() is None, (self._folder / "log").read_text()
                time.sleep(0.2)
        raise TimeoutError("mlflow server did not start")

    def kill(self) -> None:
        """SIGKILL to all of its processes."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


def shared_mlflow_server(request: pytest.FixtureRequest) -> MlflowServer:
    """The one server of a test run: it takes long to start."""
    stash = request.config.stash
    if (server := stash.get(_SERVER, None)) is None:
        folders: pytest.TempPathFactory = request.getfixturevalue("tmp_path_factory")
        server = MlflowServer(folders.mktemp("mlflow"))
        request.config.add_cleanup(server.kill)
        server.start()
        stash[_SERVER] = server
    return server


_SERVER = pytest.StashKey[MlflowServer]()


class Door:
    """What clients take for the tracking server. Change `mode` at any time."""

    def __init__(self, server: MlflowServer) -> None:
        self.backend = server.url
        self.arrived: list[tuple[str, int]] = []
        """Key and step of every metric that was let through, in the order of arrival."""
        self.requests = 0
        self._changed = threading.Condition()
        self._mode: Mode = "open"
        self._http: _Http | None = _Http(self, 0)
        self._port = self._http.server_port
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
        door.requests += 1
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        mode = door.mode
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
            with urllib.request.urlopen(request, timeout=30) as response:
                status, answer = response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        if re.search(r"runs/log-batch$", self.path):
            metrics = json.loads(body)["metrics"]
            self.server.door.arrived += [(each["key"], each["step"]) for each in metrics]
        return status, answer

    def _answer(self, status: int, answer: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
