"""A receiver of notices, as a user would write one, in a thread of the test."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from heliograph.pipeline.promotion.notice import NotGenuine, Notice, read_notice
from tests.waiting import DEADLINE, wait_until

SECRET = "a secret of the tests'"


class Receiver(ThreadingHTTPServer):
    """Answers 200 to what is genuine and 401 to the rest; 500 while it is `broken`, and nothing
    until it is `awake`."""

    daemon_threads = True

    def __init__(self, secret: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/champions"
        self.secret = secret
        self.broken = False
        self.awake = threading.Event()
        self.awake.set()
        self.notices: list[Notice] = []
        self.others = 0
        """Genuine deliveries about something else."""
        self.refused: list[str] = []
        self.requests: list[tuple[dict[str, str], bytes]] = []
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        wait_until(condition, lambda: (self.notices, self.others, self.refused))


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        receiver = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        receiver.requests.append((dict(self.headers.items()), body))
        receiver.awake.wait(DEADLINE)
        self._answer(*self._judge(body))

    def _judge(self, body: bytes) -> tuple[int, str]:
        receiver = self.server
        if receiver.broken:
            return 500, "on fire"
        try:
            notice = read_notice(dict(self.headers.items()), body, receiver.secret)
        except NotGenuine as error:
            receiver.refused.append(str(error))
            return 401, "who are you?"
        if notice is None:
            receiver.others += 1
        else:
            receiver.notices.append(notice)
        return 200, "thank you"

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


@contextmanager
def open_receiver(secret: str = SECRET) -> Iterator[Receiver]:
    receiver = Receiver(secret)
    try:
        yield receiver
    finally:
        receiver.awake.set()
        receiver.shutdown()
        receiver.server_close()
