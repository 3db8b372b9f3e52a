"""A server as its operator has it: asked, attacked, promoted under load, looked at, ended."""

import json
import os
import re
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from heliograph.pipeline.translation.translate import Translator
from tests.pipeline.conftest import PAIRS, MakeModel
from tests.pipeline.local_serving import ask
from tests.pipeline.model_store import SETTINGS, Store
from tests.small_job import Command
from tests.waiting import DEADLINE, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Page

SENTENCE, TRANSLATION = PAIRS[0]
UNKNOWN = PAIRS[-1][0]
"""What version 1 has not learned."""
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync",
    "--disable-component-update", "--no-first-run",
]  # fmt: skip


class Served:
    """A server of models:/tiny@champion, and the store that it follows."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.store = store
        uri = os.environ["MLFLOW_TRACKING_URI"]
        words = ["heliograph.jobs.serve", "models:/tiny@champion", "--port", "0", "--watch", "0.2"]
        words += ["--seconds", "200"]  # on a busy machine, too
        self.command = Command(words, folder, {"MLFLOW_TRACKING_URI": uri, "OMP_NUM_THREADS": "1"})

    def wait(self) -> None:
        """Until it listens."""

        def said() -> re.Match[str] | None:
            assert self.command.process.poll() is None, self.command.said()
            return re.search(r" on http://(127\.0\.0\.1):(\d+)", self.command.said())

        found = wait_until(said, self.command.said)
        assert found is not None
        self.address = found[1], int(found[2])
        self.url = f"http://{found[1]}:{found[2]}"

    def promote(self, version: int) -> None:
        self.store.client.set_registered_model_alias("tiny", "champion", str(version))


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, empty_store: Path, make_model: MakeModel
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    shutil.copyfile(empty_store, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        store = Store(folder)
        store.register(make_model(1, 3))
        store.register(make_model(1))
        store.client.set_registered_model_alias("tiny", "champion", "1")
        served = Served(folder, store)
        try:
            served.wait()
            yield served
        finally:
            served.command.kill()


def test_a_promotion_under_load_drops_nothing(server: Served, make_model: MakeModel) -> None:
    """Clients that never pause, while the champion changes on real replicas: each answer is what
    the version that it names makes of the sentence."""
    stop, answers = threading.Event(), []
    expected = {
        number: Translator.load(folder, "cpu").translate([UNKNOWN], SETTINGS)[0]
        for number, folder in ((1, make_model(1, 3)), (2, make_model(1)))
    }
    assert expected[1] != expected[2]

    def client() -> None:
        while not stop.is_set():
            answer = ask(server.address, "/translate", {"text": UNKNOWN})
            said = answer.json()
            text, version = said["translations"][0]["text"], said["model"]["version"]
            answers.append((answer.status, version, text == expected[version]))

    threads = [threading.Thread(target=client) for _ in range(6)]
    for thread in threads:
        thread.start()
    server.promote(2)
    wait_until(
        lambda: len(answers) >= 40 and answers[-1][1] == 2,
        lambda: (answers[-5:], server.command.said()),
    )
    stop.set()
    for thread in threads:
        thread.join(DEADLINE)
    assert set(answers) == {(200, 1, True), (200, 2, True)}


def test_what_attacks_it_is_refused_and_it_goes_on(server: Served) -> None:
    """All of them are in tests/pipeline/serving/test_http.py; here some reach a real replica."""
    for body, status in (
        (b'{"text": "' + b"a" * 10_000_000 + b'"}', 413),
        ({"text": ["a"] * 10_000}, 413),
        (b'{"text": "\\ud800"}', 400),
        ({"text": "a", "beam": 1000}, 422),
        ({"text": ""}, 200),
        ({"text": "\u202e\u2028 €" * 20}, 200),
        ({"text": [SENTENCE] * 32, "beam": 8}, 200),
    ):
        answer = ask(server.address, "/translate", body)
        assert answer.status == status, answer.body
        assert ("error" in answer.json()) == (status != 200)
    answer = ask(server.address, "/translate", {"text": SENTENCE})
    assert answer.json()["translations"][0]["text"] == TRANSLATION


def test_alternatives_and_prefixes(server: Served) -> None:
    asked = {"text": [SENTENCE, " "], "alternatives": 3, "beam": 4}
    first, blank = ask(server.address, "/translate", asked).json()["translations"]
    scores = [found["score"] for found in first["alternatives"]]
    assert len(set(scores)) == 3
    assert scores == sorted(scores, reverse=True)
    assert first["alternatives"][0]["text"] == first["text"] == TRANSLATION
    assert blank == {"text": "", "alternatives": []}
    forced = ask(server.address, "/translate", {"text": SENTENCE, "prefix": "Die Rinde"}).json()
    assert forced["translations"][0]["text"].startswith("Die Rinde")


@pytest.fixture(scope="module")
def open_page() -> Iterator[Callable[..., "Page"]]:
    """Opens the page in a browser that lets nothing but this server be asked."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)

        def open_at(url: str, **options: object) -> "Page":
            page = browser.new_context(**options).new_page()
            page.foreign, page.faults = [], []  # type: ignore[attr-defined]
            page.on("request", lambda request: note_foreign(page, url, request.url))
            page.on("pageerror", lambda error: page.faults.append(str(error)))  # type: ignore[attr-defined]
            page.on("console", lambda said: said.type == "error" and page.faults.append(said.text))  # type: ignore[attr-defined]
            page.goto(url)
            return page

        yield open_at
        browser.close()


def note_foreign(page: "Page", url: str, asked: str) -> None:
    if not asked.startswith(url.rsplit("/", 1)[0] + "/"):
        page.foreign.append(asked)  # type: ignore[attr-defined]


PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


@pytest.mark.parametrize("phone", [False, True])
def test_the_page_translates_and_shows_the_attention(
    server: Served, open_page: Callable[..., "Page"], phone: bool
) -> None:
    page = open_page(f"{server.url}/", **(PHONE if phone else {}))
    hostile = "<img src=x onerror=document.title='owned'>"
    page.fill("#text", f"{SENTENCE}\n{hostile}")
    page.tap("#translate") if phone else page.keyboard.press("Control+Enter")
    page.wait_for_selector("article .target .word", timeout=DEADLINE * 1000)
    first = page.locator("article").first
    assert first.locator(".target").inner_text().split() == TRANSLATION.split()
    assert first.locator(".alternatives button").count() == 3
    assert page.locator("article").nth(1).locator(".source").inner_text() == hostile
    word = first.locator(".target .word").nth(1)
    word.tap() if phone else word.hover()
    first.locator(".head").first.wait_for(timeout=DEADLINE * 1000)
    assert first.locator(".head").count() == 4  # two layers of two heads
    assert "For “Hund”, all heads together looked at " in first.locator("figcaption").inner_text()
    weights = first.locator(".source .word").evaluate_all(
        "words => words.map((word) => Number(word.style.getPropertyValue('--weight')))"
    )
    assert sum(weights) == pytest.approx(1, abs=0.01)
    head = first.locator(".head").nth(2)
    head.tap() if phone else head.click()
    assert head.get_attribute("aria-pressed") == "true"
    assert "layer 2, head 1" in first.locator("figcaption").inner_text()
    if phone:
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= PHONE["viewport"]["width"]  # type: ignore[index]
    else:
        first.locator(".target .word").nth(1).focus()
        page.keyboard.press("ArrowRight")
        assert "For “bellt”" in first.locator("figcaption").inner_text()
        first.locator(".alternatives button").nth(1).click()
        assert first.locator(".target").inner_text().split() != TRANSLATION.split()
    assert (page.foreign, page.faults, page.title()) == ([], [], "Heliograph")  # type: ignore[attr-defined]


def test_the_interface_is_described_without_help_from_elsewhere(
    server: Served, open_page: Callable[..., "Page"]
) -> None:
    page = open_page(f"{server.url}/docs")
    page.wait_for_selector("article")
    assert "POST /translate" in page.locator("h2").all_inner_texts()
    assert "no_repeat_ngram" in page.locator("article").first.inner_text()
    assert (page.foreign, page.faults) == ([], [])  # type: ignore[attr-defined]
    described = ask(server.address, "/openapi.json").json()
    assert set(described["paths"]) == {"/translate", "/attention", "/health", "/ready", "/metrics"}


def test_asked_to_end_it_answers_first_and_leaves_nothing(server: Served) -> None:
    """The last test of this server."""
    family = server.command.family()
    body = json.dumps({"text": [SENTENCE] * 64}).encode()
    head = (
        f"POST /translate HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(server.address, DEADLINE) as client:
        client.sendall(head.encode() + body)
        time.sleep(0.05)
        server.command.process.send_signal(signal.SIGTERM)
        said = b""
        while part := client.recv(65536):
            said += part
    assert said.startswith(b"HTTP/1.1 200 OK\r\n")
    assert said.count(TRANSLATION.encode()) == 64
    assert server.command.process.wait(DEADLINE) == 130, server.command.said()
    assert "Traceback" not in server.command.said()
    _, alive = psutil.wait_procs(family, timeout=DEADLINE)
    assert not alive
