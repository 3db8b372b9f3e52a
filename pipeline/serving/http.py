"""The socket's side of the server: clients that are slow, many, or speak no HTTP."""

import asyncio
import json
import socket
from http import HTTPStatus
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.serving.limits import Limits


def bind(host: str, port: int) -> socket.socket:
    """A socket with that address that does not listen yet; port 0: any free one.

    Raises:
        RequestError: the address is in use, or not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except (OSError, OverflowError) as error:
        raise RequestError(
            f"--host {host} --port {port}: {error}; --port 0 takes a free port"
        ) from error
    return bound


def url_of(bound: socket.socket) -> str:
    """http://HOST:PORT of a bound socket."""
    host, port = bound.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


async def run_server(application: Any, bound: socket.socket, limits: Limits) -> None:
    """Answer until SIGINT or SIGTERM, and then still what has come; raises KeyboardInterrupt.

    A second signal ends at once.
    """
    config = uvicorn.Config(
        application,
        http=type("Protocol", (BoundedProtocol,), {"limits": limits}),
        ws="none",
        lifespan="off",
        log_level="critical",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(limits.seconds + limits.read_seconds) + 1,
    )
    await uvicorn.Server(config).serve([bound])


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with the bounds that it lacks: on the time and the size of a request's
    headers and on connections, each answered in JSON, and on the time to take an answer."""

    limits: Limits
    _timer: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _header_bytes = 0
    _in_headers = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._refuse(503, "too many connections", "Retry-After: 1\r\n")
        else:
            self._begin_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_headers()
        self._end_stall()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._in_headers:
            if self._timer is None:  # the next request of a connection that was kept
                self._begin_headers()
            self._header_bytes += min(len(data), self.limits.header_bytes + 1)
        super().data_received(data)
        if self._in_headers and self._header_bytes > self.limits.header_bytes:
            message = f"the headers have more than {self.limits.header_bytes} bytes"
            self._refuse(431, message)

    def on_headers_complete(self) -> None:
        self._end_headers()
        self._in_headers = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_headers, self._header_bytes = True, 0

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # uvicorn's, in plain text
        self._refuse(400, "this is not HTTP/1.1")

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(self.limits.read_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._end_stall()

    def timeout_keep_alive_handler(self) -> None:
        self.transport.abort()  # close() would wait for a client that never reads its answer

    def _end_stall(self) -> None:
        if self._stalled:
            self._stalled.cancel()
            self._stalled = None

    def _begin_headers(self) -> None:
        self._timer = self.loop.call_later(self.limits.read_seconds, self._late)

    def _late(self) -> None:
        if self.cycle and not self.cycle.response_complete:
            self._begin_headers()  # of the next request, while this one is answered
        else:
            self._refuse(408, f"the headers did not come within {self.limits.read_seconds:g} s")

    def _end_headers(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, status: int, message: str, headers: str = "") -> None:
        self._end_headers()
        if self.transport.is_closing():
            return
        body = json.dumps({"error": message})
        self.transport.write(
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            f"Connection: close\r\n{headers}\r\n{body}".encode()
        )
        self.transport.close()
