"""The change of version, without Ray: what moves, what stays, and that no request notices."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import RayActorError

from heliograph.pipeline.serving.limits import Limits
from tests.pipeline.conftest import PAIRS, MakeModel
from tests.pipeline.local_serving import Local, Serving, ask, serving
from tests.waiting import DEADLINE, wait_until

SENTENCE, TRANSLATION = PAIRS[0]
UNKNOWN, ITS_TRANSLATION = PAIRS[-1]
"""A pair that version 1 has not learned."""


@pytest.fixture
def server(make_model: MakeModel) -> Iterator[Serving]:
    folders = {1: make_model(1, 3), 2: make_model(1)}
    with serving(folders, Limits(batch=8, seconds=DEADLINE, read_seconds=DEADLINE)) as running:
        yield running


def local(server: Serving) -> Local:
    handle: Local = server.rotation.current.handle
    return handle


def ready(server: Serving) -> dict[str, Any]:
    readiness: dict[str, Any] = ask(server.address, "/ready").json()
    return readiness


def metric(server: Serving, name: str) -> float:
    page = ask(server.address, "/metrics").body.decode()
    (line,) = (line for line in page.splitlines() if line.startswith(f"{name} "))
    return float(line.split()[-1])


def test_every_answer_says_its_version_and_is_that_version_s(server: Serving) -> None:
    """Clients that never pause, through several changes: each answer is right, and none is lost."""
    stop = threading.Event()
    answers: list[tuple[int, int, str]] = []

    def client() -> None:
        while not stop.is_set():
            answer = ask(server.address, "/translate", {"text": [SENTENCE, UNKNOWN]})
            said = answer.json()
            texts = [found["text"] for found in said["translations"]]
            answers.append((answer.status, said["model"]["version"], texts[1]))
            assert texts[0] == TRANSLATION

    threads = [threading.Thread(target=client) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in (2, 1, 2):
        server.rotation.alias = number
        wait_until(lambda: server.rotation.current.number == number)  # noqa: B023
        seen = len(answers)
        wait_until(lambda: len(answers) > seen + 8)  # noqa: B023
    stop.set()
    for thread in threads:
        thread.join(DEADLINE)
    assert {status for status, _, _ in answers} == {200}
    assert {version for _, version, _ in answers} == {1, 2}
    for _, version, text in answers:
        assert (text == ITS_TRANSLATION) == (version == 2)
    wait_until(lambda: server.rotation.ended == ["version-1", "version-2", "version-1"])
    assert metric(server, 'heliograph_reloads_total{outcome="done"}') == 3


def test_the_old_version_ends_with_its_last_answer(server: Serving) -> None:
    old = local(server)
    old._hold = threading.Event()
    answers: list[Any] = []
    slow = threading.Thread(
        target=lambda: answers.append(ask(server.address, "/translate", {"text": SENTENCE}))
    )
    slow.start()
    wait_until(lambda: server.rotation.current.in_use)
    server.rotation.alias = 2
    wait_until(lambda: server.rotation.current.number == 2)
    newer = ask(server.address, "/translate", {"text": SENTENCE}).json()
    assert newer["model"]["version"] == 2
    assert server.rotation.ended == []
    old._hold.set()
    slow.join(DEADLINE)
    assert answers[0].json()["model"]["version"] == 1
    wait_until(lambda: server.rotation.ended == ["version-1"])


def test_a_version_that_cannot_be_loaded_changes_nothing(
    server: Serving, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.rotation.folders[3] = tmp_path  # holds no model
    server.rotation.alias = 3
    wait_until(lambda: ready(server)["trouble"])
    assert ready(server) == {
        "ready": True,
        "version": 1,
        "replicas": 1,
        "trouble": "version 3 cannot be loaded",
    }
    assert metric(server, 'heliograph_reloads_total{outcome="failed"}') == 1
    server.rotation.alias = 2
    wait_until(lambda: ready(server)["version"] == 2)
    assert ready(server)["trouble"] is None
    said = capfd.readouterr().err
    assert said.count("version 3 cannot be loaded; version 1 stays") == 1
    assert str(tmp_path) in said, "the operator is told why"


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (ConnectionError("http://user:secret@10.0.0.1"), "the registry does not answer"),
        (KeyError("champion"), "the alias is gone"),
    ],
)
def test_without_the_registry_the_version_stays(
    server: Serving, error: Exception, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> int:
        raise error

    with monkeypatch.context() as away:
        away.setattr(server.rotation, "_find", fail)
        wait_until(lambda: ready(server)["trouble"] == trouble)
        assert metric(server, "heliograph_registry_up") == 0
        answer = ask(server.address, "/translate", {"text": SENTENCE})
        assert answer.json()["translations"][0]["text"] == TRANSLATION
        assert "secret" not in ask(server.address, "/ready").body.decode()
    server.rotation.alias = 2
    wait_until(lambda: ready(server)["version"] == 2)
    assert metric(server, "heliograph_registry_up") == 1


def test_a_replica_that_dies_costs_no_answer(server: Serving) -> None:
    local(server).failures += [RayActorError(), RayActorError()]
    answer = ask(server.address, "/translate", {"text": SENTENCE})
    assert (answer.status, answer.json()["translations"][0]["text"]) == (200, TRANSLATION)
    assert metric(server, "heliograph_retries_total") == 2


def test_when_all_of_them_die_it_is_said(server: Serving) -> None:
    local(server).failures += [RayActorError()] * 3
    answer = ask(server.address, "/translate", {"text": SENTENCE})
    assert answer.status == 503
    assert answer.headers["retry-after"]
    assert "no replica" in answer.json()["error"]


def test_without_a_replica_it_is_not_ready(
    server: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.rotation, "_running_replicas", lambda: 0)
    wait_until(lambda: ask(server.address, "/ready").status == 503)
    assert ask(server.address, "/health").status == 200
