"""Between a client and a server, as `ssh -L` is: a way that can be cut at a certain request."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from tests.tracking_server import hold_port

SECONDS_CUT = 1.0


@dataclass
class Tunnel:
    """Bytes go through as they are. Cut, it has no connections, and refuses new ones."""

    backend: str
    cuts: int = 0
    _planned: list[tuple[bytes, bool, Callable[[], None]]] = field(default_factory=list)
    _open: list[socket.socket] = field(default_factory=list)
    _listener: socket.socket | None = None

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._held = hold_port()
        self._port: int = self._held.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self.restore()

    def at(self, request: str, do: Callable[[], None] | None = None, *, passed: bool) -> None:
        """Do something, or cut it for a moment, at the next request whose first line begins so.

        Args:
            passed: only when the server's answer is there, which the client does not get.
        """
        with self._lock:
            self._planned.append((request.encode(), passed, do or self.cut_for_a_moment))

    @property
    def planned(self) -> list[str]:
        """Requests that have not come yet."""
        return [request.decode() for request, _, _ in self._planned]

    def cut_for_a_moment(self) -> None:
        self.cut()
        threading.Timer(SECONDS_CUT, self.restore).start()

    def cut(self) -> None:
        with self._lock:
            self.cuts += 1
            sockets = [*self._open, *([self._listener] if self._listener else [])]
            self._open, self._listener = [], None
        for each in sockets:
            _close(each)

    def restore(self) -> None:
        with self._lock:
            self._listener = socket.create_server(("127.0.0.1", self._port))
            threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()

    def _serve(self, listener: socket.socket) -> None:
        host, _, port = self.backend.removeprefix("http://").rpartition(":")
        with suppress(OSError):  # it was cut
            while True:
                client, _ = listener.accept()
                server = socket.create_connection((host, int(port)))
                with self._lock:
                    self._open += [client, server]
                threading.Thread(target=self._carry, args=(client, server), daemon=True).start()

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        """A request, on a connection of its own as Ray's client makes it, and all that follows."""
        with suppress(OSError):
            first = client.recv(2**16)
            do, passed = self._plan_for(first)
            if do and not passed:
                do()
            server.sendall(first)
            threading.Thread(target=_pump, args=(client, server), daemon=True).start()
            if do and passed:
                server.recv(1)
                do()
                return
            _pump(server, client)
        _close(client)
        _close(server)

    def _plan_for(self, first: bytes) -> tuple[Callable[[], None] | None, bool]:
        with self._lock:
            for plan in self._planned:
                if first.startswith(plan[0]):
                    self._planned.remove(plan)
                    return plan[2], plan[1]
        return None, False


@contextmanager
def open_tunnel(backend: str) -> Iterator[Tunnel]:
    tunnel = Tunnel(backend)
    try:
        yield tunnel
    finally:
        tunnel.cut()
        tunnel._held.close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(2**16):
            sink.sendall(data)
    _close(sink)


def _close(which: socket.socket) -> None:
    with suppress(OSError):
        which.shutdown(socket.SHUT_RDWR)  # wakes who waits at it
    which.close()
