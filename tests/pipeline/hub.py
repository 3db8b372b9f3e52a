"""A stand-in for the Hugging Face hub: the few requests that reading makes, on 127.0.0.1."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.waiting import DEADLINE


class Hub(ThreadingHTTPServer):
    """`publish` a dataset's files, then read them through `endpoint`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.requests: list[str] = []
        self._commits: dict[tuple[str, str], dict[str, bytes]] = {}
        self._heads: dict[str, str] = {}
        self.gated: set[str] = set()
        self.private: dict[str, str] = {}
        """Dataset → the token that opens it."""
        self.drops: dict[str, int] = {}
        """File → how many more of its answers end in the middle of the body."""
        self.missing_bytes: dict[str, int] = {}
        """File → how many bytes it is shorter than its announced size."""

    def publish(self, name: str, files: dict[str, bytes]) -> str:
        """A new commit that holds exactly these files; returns its SHA."""
        content = repr((name, sorted(files.items()))).encode()
        sha = hashlib.sha1(content, usedforsecurity=False).hexdigest()
        self._commits[name, sha] = files
        self._heads[name] = sha
        return sha

    def commit(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """SHA and files of a revision of a dataset."""
        sha = self._heads.get(name, "") if revision == "main" else revision
        files = self._commits.get((name, sha))
        return None if files is None else (sha, files)


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """A hub without datasets, until the block ends."""
    hub = Hub()
    thread = Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()


_ROUTES = (
    ("info", re.compile(r"/api/datasets/(?P<name>[^/]+/[^/]+)(/revision/(?P<revision>[^/]+))?")),
    (
        "tree",
        re.compile(r"/api/datasets/(?P<name>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)/?(?P<path>.*)"),
    ),
    ("paths", re.compile(r"/api/datasets/(?P<name>[^/]+/[^/]+)/paths-info/(?P<revision>[^/]+)")),
    (
        "file",
        re.compile(r"/datasets/(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)"),
    ),
)


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _answer(self, body: bytes = b"") -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(f"{self.command} {path}")
        for kind, pattern in _ROUTES:
            if match := pattern.fullmatch(path):
                return self._dataset(kind, body, **match.groupdict())
        return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})

    def _dataset(
        self, kind: str, body: bytes, name: str, revision: str | None, path: str = "", **_: Any
    ) -> None:
        if name in self.server.gated:
            return self._send(403, b"", {"X-Error-Code": "GatedRepo"})
        token = self.server.private.get(name)
        hidden = token is not None and self.headers.get("Authorization") != f"Bearer {token}"
        if hidden or self.server.commit(name, "main") is None:
            return self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
        found = self.server.commit(name, revision or "main")
        if found is None:
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        sha, files = found
        if kind == "info":
            siblings = [{"rfilename": file} for file in files]
            return self._json({"id": name, "sha": sha, "private": False, "siblings": siblings})
        if kind == "tree":
            return self._json(_tree(files, path))
        if kind == "paths":
            wanted = json.loads(body)["paths"]
            return self._json([entry for p in wanted for entry in _entry(files, p.strip("/"))])
        if path not in files:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha})
        content = files[path]
        return self._file(content[: len(content) - self.server.missing_bytes.get(path, 0)], sha)

    def _file(self, content: bytes, sha: str) -> None:
        headers = {
            "ETag": f'"{hashlib.sha1(content, usedforsecurity=False).hexdigest()}"',
            "X-Repo-Commit": sha,
            "Accept-Ranges": "bytes",
        }
        if not (part := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))):
            return self._send(200, content, headers)
        first, last = int(part[1]), min(int(part[2] or len(content)), len(content) - 1)
        if first >= len(content):
            return self._send(416, b"", headers)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        return self._send(206, content[first : last + 1], headers)

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        name = unquote(urlsplit(self.path).path).rpartition("/")[2]
        if self.server.drops.get(name, 0):
            self.server.drops[name] -= 1
            content, self.close_connection = content[: len(content) // 2], True
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: `requests` has them."""


def _tree(files: dict[str, bytes], folder: str) -> list[dict[str, Any]]:
    """All files and folders below a folder: every listing is answered as a recursive one is."""
    prefix = f"{folder.strip('/')}/" if folder.strip("/") else ""
    inside = [path for path in files if path.startswith(prefix)]
    folders = {parent for path in inside for parent in _parents(path) if parent.startswith(prefix)}
    return [entry for path in sorted({*inside, *folders}) for entry in _entry(files, path)]


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]


def _entry(files: dict[str, bytes], path: str) -> list[dict[str, Any]]:
    if path in files:
        oid = hashlib.sha1(files[path], usedforsecurity=False).hexdigest()
        return [{"type": "file", "path": path, "size": len(files[path]), "oid": oid}]
    if any(file.startswith(f"{path}/") for file in files):
        return [{"type": "directory", "path": path, "oid": "0" * 40}]
    return []


# --- Reading from it ----------------------------------------------------------------------------

ON_THE_HUB = """
import json, sys
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.request.data import Data
from heliograph.pipeline.sources.source import check_source, find_source
for request in json.loads(sys.argv[1]):
    name, split, values = request
    data = Data(**{"train": name, "validation": "-", "source": "en", "target": "de"} | values)
    name = data.train
    try:
        found = find_source(name, data, split)
        check_source(found)
        tables = [t for part in range(len(found.parts)) for t in found.tables(part)]
        answer = {"rows": sum(t.num_rows for t in tables), "identity": found.identity}
    except RequestError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer))
"""


def ask(
    endpoint: str,
    home: Path,
    *requests: tuple[Any, str, dict[str, Any]],
    program: str = ON_THE_HUB,
    token: str = "",
) -> list[Any]:
    """Answers of a new process, because the endpoint is read when the libraries are imported."""
    environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "NO_PROXY": "*"}
    environment |= {"HF_TOKEN": token} if token else {}
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(requests)],
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
