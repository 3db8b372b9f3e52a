"""Hostile and unlucky clients: each gets a clear answer, and the server goes on."""

import http.client
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.serving.http import bind
from heliograph.pipeline.serving.limits import Limits
from tests.pipeline.conftest import PAIRS, MakeModel
from tests.pipeline.local_serving import Answer, Serving, ask, serving
from tests.waiting import DEADLINE, wait_until

LIMITS = Limits(read_seconds=DEADLINE, connections=20, queue=64, seconds=DEADLINE)
HASTY = LIMITS.model_copy(update={"read_seconds": 0.4})
"""For clients that are too slow, and only for them: on a busy machine any client may be."""
SENTENCE, TRANSLATION = PAIRS[0]
TOKEN = "correct horse battery staple"

BODIES: dict[str, tuple[int, Any, str]] = {
    "10 MB": (413, b'{"text": "' + b"a" * 10_000_000 + b'"}', "more than 1048576 bytes"),
    "a megabyte on one line": (413, {"text": "a" * 1_000_000}, "characters; at most 2000"),
    "10,000 items": (413, {"text": ["a"] * 10_000}, "10000 sentences; at most 64"),
    "too many tokens": (413, {"text": "€" * 500}, "tokens; at most 256"),
    "no JSON": (400, b'{"text": "a', "no JSON"),
    "nothing": (400, b"", "no JSON"),
    "not UTF-8": (400, b'{"text": "\xff"}', "no JSON"),
    "deeply nested": (400, b'{"text": ' + b"[" * 100_000, "no JSON"),
    "deeply nested and closed": (400, b"[" * 5000 + b"]" * 5000, "no JSON"),
    "lone surrogate": (400, b'{"text": "\\ud800"}', "no JSON"),
    "half an escape": (400, b'{"text": "\\u00"}', "no JSON"),
    "null character": (422, {"text": "a\0b"}, "text.0: control character U+0000 at 1"),
    "terminal's escape": (422, {"text": ["a", "\x1b[2J"]}, "text.1: control character U+001B"),
    "line end": (422, {"text": "a\nb"}, "send each line as a text of its own"),
    "number": (422, {"text": 3}, "text: Input should be a valid array"),
    "list of numbers": (422, {"text": ["a", 3]}, "text.1: Input should be a valid string"),
    "empty list": (422, {"text": []}, "text: List should have at least 1 item"),
    "no object": (422, ["a"], "body: "),
    "no text": (422, {"txet": "a"}, "text: Field required"),
    "unknown key": (422, {"text": "a", "bema\x1b": 5}, "bema\\x1b: unknown key"),
    "beam 1000": (422, {"text": "a", "beam": 1000}, "beam: 1000; at most 8"),
    "beam 0": (422, {"text": "a", "beam": 0}, "beam: "),
    "beam as text": (422, {"text": "a", "beam": "5"}, "beam: "),
    "beam of 10^400": (422, b'{"text": "a", "beam": 1' + b"0" * 400 + b"}", "beam: "),
    "not a number": (422, b'{"text": "a", "length_penalty": NaN}', "length_penalty: "),
    "infinite penalty": (422, b'{"text": "a", "length_penalty": 1e999}', "length_penalty: "),
    "more than the beam": (422, {"text": "a", "alternatives": 3, "beam": 2}, "at most beam"),
    "prefixes": (422, {"text": ["a"] * 3, "prefix": ["b", "c"]}, "2 for 3 texts"),
}


@pytest.fixture(scope="module")
def server(make_model: MakeModel) -> Iterator[Serving]:
    with serving({1: make_model(1)}, LIMITS) as running:
        yield running


@pytest.fixture(scope="module")
def hasty_server(make_model: MakeModel) -> Iterator[Serving]:
    with serving({1: make_model(1)}, HASTY) as running:
        yield running


@pytest.fixture(autouse=True)
def goes_on(server: Serving) -> Iterator[None]:
    """After each test the server translates, and it never said that the fault was its own."""
    yield
    answer = ask(server.address, "/translate", {"text": SENTENCE})
    assert answer.json()["translations"] == [{"text": TRANSLATION, "alternatives": None}]
    assert 'status="500"' not in ask(server.address, "/metrics").body.decode()


def assert_refused(answer: Answer, status: int, message: str) -> None:
    assert (answer.status, answer.headers["content-type"]) == (status, "application/json")
    assert list(answer.json()) == ["error"]
    assert message in answer.json()["error"]
    assert len(answer.body) < 400


@pytest.mark.parametrize("name", BODIES)
def test_a_hostile_body(name: str, server: Serving) -> None:
    status, body, message = BODIES[name]
    assert_refused(ask(server.address, "/translate", body), status, message)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"source": "a", "target": "a" * 3000}, "target: 3000 characters"),
        ({"source": "a\0", "target": "a"}, "source: control character"),
        ({"source": "a"}, "target: Field required"),
    ],
)
def test_attention_has_the_same_limits(body: Any, message: str, server: Serving) -> None:
    answer = ask(server.address, "/attention", body)
    assert answer.status in (413, 422)
    assert message in answer.json()["error"]


def test_another_content_type(server: Serving) -> None:
    """text/plain is what another site's page could make a visitor's browser send."""
    for kind in ("text/plain", "multipart/form-data; boundary=x", ""):
        answer = ask(server.address, "/translate", {"text": "a"}, {"content-type": kind})
        assert_refused(answer, 415, "send application/json")


def test_unknown_paths_and_methods(server: Serving) -> None:
    assert_refused(ask(server.address, "/tranlsate", {"text": "a"}), 404, "/translate")
    assert_refused(ask(server.address, "/../../etc/passwd"), 404, "nothing here")
    assert_refused(ask(server.address, "/translate"), 405, "see /docs")


def send(address: tuple[str, int], *parts: bytes, pause: float = 0.0) -> bytes:
    """All that the server says before it closes, to a client that sends so."""
    with connect(address) as client:
        for part in parts:
            try:
                client.sendall(part)
            except OSError:
                break
            time.sleep(pause)
        said = b""
        try:
            while part := client.recv(65536):
                said += part
        except ConnectionResetError:
            pass
    return said


HEAD = b"POST /translate HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ((b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",), b"400"),  # TLS
        ((b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",), b"431"),
        ((b"GET /" + b"a" * 200_000,), b"431"),
        ((HEAD + b"Content-Length: 99999999999999999999\r\n\r\n",), b"4"),
        ((HEAD + b"Content-Length: -1\r\n\r\n",), b"400"),
        ((HEAD + b"Content-Length: 900000000\r\n\r\n",), b"413"),
        ((HEAD + b"Content-Length: 3000000\r\nExpect: 100-continue\r\n\r\n",), b"413"),
    ],
    ids=range(7),
)
def test_a_hostile_connection(parts: tuple[bytes, ...], status: bytes, server: Serving) -> None:
    assert_says(status, send(server.address, *parts))


@pytest.mark.parametrize(
    "parts",
    [
        (b"",),
        (b"P", b"O", b"S", b"T", b" ", b"/", b" "),  # slowloris
        (HEAD + b"Content-Length: 20\r\n\r\n", b"{", b'"', b"t", b"e", b"x", b"t"),
    ],
    ids=range(3),
)
def test_a_slow_connection(parts: tuple[bytes, ...], hasty_server: Serving) -> None:
    assert_says(b"408", send(hasty_server.address, *parts, pause=0.15))
    body = {"text": SENTENCE}
    wait_until(lambda: ask(hasty_server.address, "/translate", body).status == 200)


def assert_says(status: bytes, said: bytes) -> None:
    assert said.startswith(b"HTTP/1.1 " + status), said
    head, _, body = said.partition(b"\r\n\r\n")
    assert b"application/json" in head
    assert json.loads(body)["error"]


def test_an_endless_body_is_cut_off(server: Serving) -> None:
    chunks = [b"10000\r\n" + b"a" * 65536 + b"\r\n"] * 400  # 26 MB
    said = send(server.address, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *chunks)
    assert said.startswith((b"HTTP/1.1 413", b"HTTP/1.1 408")) or said == b""


def test_more_connections_than_there_may_be(make_model: MakeModel) -> None:
    """They are told so; and when the others have gone, there is room again."""
    with serving({1: make_model(1)}, LIMITS) as server:
        held = [connect(server.address) for _ in range(LIMITS.connections)]
        assert_refused(ask(server.address, "/health"), 503, "too many connections")
        for client in held:
            client.close()
        wait_until(lambda: ask(server.address, "/health").status == 200)


def test_connections_that_say_nothing_make_room(make_model: MakeModel) -> None:
    with serving({1: make_model(1)}, HASTY) as server:
        held = [connect(server.address) for _ in range(LIMITS.connections)]
        answers = Counter(client.recv(12) for client in held)
        for client in held:
            client.close()
        assert answers.keys() <= {b"HTTP/1.1 408", b"HTTP/1.1 503"}
        # A connection that was closed before may have counted for a moment longer.
        assert answers[b"HTTP/1.1 408"] >= LIMITS.connections - 2
        wait_until(lambda: ask(server.address, "/health").status == 200)


def connect(address: tuple[str, int]) -> socket.socket:
    return socket.create_connection(address, DEADLINE)


def test_requests_on_one_connection_after_another(hasty_server: Serving) -> None:
    """The time between them is not that of their headers."""
    connection = http.client.HTTPConnection(*hasty_server.address, timeout=DEADLINE)
    for _ in range(3):
        connection.request("GET", "/health")
        assert connection.getresponse().read() == b'{"alive":true}'
        time.sleep(1.5 * HASTY.read_seconds)
    connection.close()


def test_a_client_that_hangs_up_leaves_the_queue(server: Serving) -> None:
    hold = threading.Event()
    handle = server.rotation.current.handle
    handle._hold = hold
    body = json.dumps({"text": [SENTENCE] * 8}).encode()
    clients = [connect(server.address) for _ in range(4)]
    for client in clients:
        client.sendall(HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    wait_until(lambda: waiting(server) == 32)
    for client in clients:
        client.close()
    wait_until(lambda: waiting(server) == 0)
    handle._hold = None
    hold.set()
    metrics = ask(server.address, "/metrics").body.decode()
    assert 'heliograph_requests_total{path="/translate",status="499"} 4.0' in metrics


def test_a_full_queue_says_when_to_come_again(server: Serving) -> None:
    hold = threading.Event()
    handle = server.rotation.current.handle
    handle._hold = hold
    answers: list[Answer] = []
    many = {"text": [SENTENCE] * 32}
    threads = [
        threading.Thread(target=lambda: answers.append(ask(server.address, "/translate", many)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: waiting(server) == LIMITS.queue)
    refused = ask(server.address, "/translate", {"text": SENTENCE})
    handle._hold = None
    hold.set()
    for thread in threads:
        thread.join(DEADLINE)
    assert_refused(refused, 429, "the queue is full: 64 of at most 64 texts wait")
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert [answer.status for answer in answers] == [200, 200]


def waiting(server: Serving) -> float:
    metrics = ask(server.address, "/metrics").body.decode()
    (line,) = (line for line in metrics.splitlines() if line.startswith("heliograph_queue_sent"))
    return float(line.split()[1])


def test_the_token(make_model: MakeModel) -> None:
    with serving({1: make_model(1)}, LIMITS, TOKEN) as server:
        for shown in ({}, {"authorization": f"Bearer {TOKEN}x"}, {"authorization": TOKEN},
                      {"authorization": "Bearer "}, {"authorization": "\xff"}):  # fmt: skip
            for path in ("/translate", "/attention"):
                assert_refused(ask(server.address, path, {"text": "a"}, shown), 401, "the token")
            assert ask(server.address, "/metrics", None, shown).status == 401
        right = {"authorization": f"Bearer {TOKEN}"}
        answer = ask(server.address, "/translate", {"text": SENTENCE}, right)
        assert answer.json()["translations"][0]["text"] == TRANSLATION
        for path in ("/", "/docs", "/openapi.json", "/health", "/ready", "/page.js"):
            assert ask(server.address, path).status == 200


def test_an_address_that_is_taken_is_said() -> None:
    bound = bind("127.0.0.1", 0)
    bound.listen()
    port = bound.getsockname()[1]
    with pytest.raises(RequestError, match=f"--port {port}: .*in use.*--port 0"):
        bind("127.0.0.1", port)
    with pytest.raises(RequestError, match="no-such-host"):
        bind("no-such-host.invalid", 0)
    bound.close()
