"""A server in this process: its HTTP, its limits and its changes of version, without Ray."""

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heliograph.pipeline.checkpoints.model_folder import read_settings
from heliograph.pipeline.serving.answers import Queue
from heliograph.pipeline.serving.app import build_application
from heliograph.pipeline.serving.http import bind, run_server
from heliograph.pipeline.serving.limits import Limits
from heliograph.pipeline.serving.metrics import Metrics
from heliograph.pipeline.serving.replica import Done, Gathering, Work, translate_together
from heliograph.pipeline.serving.versions import Fleet, Rotation, Version
from heliograph.pipeline.translation.translate import Translator
from tests.waiting import DEADLINE, wait_until


class Method:
    """As of a Serve handle: `remote` begins a call, which can be awaited and cancelled."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def remote(self, *words: Any) -> "asyncio.Future[Any]":
        return asyncio.ensure_future(self._call(*words))


class Local:
    """What a replica does, in this process.

    Args:
        hold: if given, each batch waits until it is set.
    """

    def __init__(self, folder: Path, hold: threading.Event | None = None) -> None:
        self.model = Translator.load(folder, "cpu")
        self.batches: list[int] = []
        self.failures: list[Exception] = []
        self._hold = hold
        self._gathering = Gathering(self._run, 32, 0.0)
        self.translate = Method(self._translate)
        self.attention = Method(self._attention)

    def _run(self, works: list[Work]) -> list[Done | Exception]:
        if self._hold:
            self._hold.wait(DEADLINE)
        self.batches.append(len(works))
        return translate_together(self.model, works)

    async def _translate(self, work: Work) -> Done:
        if self.failures:
            raise self.failures.pop()
        return await self._gathering.add(work)

    async def _attention(self, source: str, target: str) -> Any:
        return self.model.attention(source, target)


class LocalRotation(Rotation):
    """Versions of models in folders, by number."""

    def __init__(self, folders: dict[int, Path], limits: Limits) -> None:
        super().__init__("models:/tiny@champion", Fleet(1, False, "torch"), limits)
        self.folders = folders
        self.alias = min(folders)
        self.hold: threading.Event | None = None
        self.ended: list[str] = []
        self.current = self._load(self.alias, folders[self.alias])

    def _find(self) -> int:
        return self.alias

    def _fetch(self, number: int | None, scratch: str) -> Path:  # noqa: ARG002
        assert number is not None
        return self.folders[number]

    def _load(self, number: int | None, folder: Path) -> Version:
        local = Local(folder, self.hold)
        return Version(
            number, f"version-{number}", read_settings(folder), local.model.tokenizer, local
        )

    def _running_replicas(self) -> int:
        return 1

    def _end(self, application: str) -> None:
        self.ended.append(application)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Serving:
    """A server that runs: its address, and what it consists of."""

    address: tuple[str, int]
    rotation: LocalRotation
    loop: asyncio.AbstractEventLoop


@contextmanager
def serving(
    folders: dict[int, Path], limits: Limits, token: str | None = None, watch: float = 0.05
) -> Iterator[Serving]:
    """A server on a free port of this machine."""
    bound = bind("127.0.0.1", 0)
    begun = threading.Event()
    parts: dict[str, Any] = {}

    async def main() -> None:
        rotation = parts["rotation"] = LocalRotation(folders, limits)
        queue = Queue(limits.queue)
        metrics = Metrics(lambda: queue.waiting)
        application = build_application(rotation, limits, metrics, queue, token)
        watching = asyncio.create_task(rotation.watch(watch, metrics))
        parts["loop"], parts["task"] = asyncio.get_running_loop(), asyncio.current_task()
        begun.set()
        try:
            await run_server(application, bound, limits)
        finally:
            watching.cancel()

    thread = threading.Thread(target=lambda: _quietly(main), daemon=True)
    thread.start()
    begun.wait(DEADLINE)
    _wait_until_it_listens(bound.getsockname())
    try:
        yield Serving(bound.getsockname(), parts["rotation"], parts["loop"])
    finally:
        parts["loop"].call_soon_threadsafe(parts["task"].cancel)
        thread.join(DEADLINE)
        assert not thread.is_alive()


def _quietly(main: Any) -> None:
    with suppress(asyncio.CancelledError):
        asyncio.run(main())


def _wait_until_it_listens(address: tuple[str, int]) -> None:
    def listens() -> bool:
        try:
            socket.create_connection(address, DEADLINE).close()
        except ConnectionRefusedError:
            return False
        return True

    wait_until(listens)


def ask(
    address: tuple[str, int],
    path: str,
    body: Any = None,
    headers: dict[str, str] | None = None,
    timeout: float = DEADLINE,
) -> Answer:
    """One request on a connection of its own: POST where there is a body, which is sent as it is if
    it is bytes, and else as JSON."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    connection = http.client.HTTPConnection(*address, timeout=timeout)
    try:
        method = "GET" if data is None else "POST"
        connection.request(
            method, path, data, {"content-type": "application/json", **(headers or {})}
        )
        answer = connection.getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()
