"""`heliograph notify`, with a real server and a receiver."""

import json
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner, Result

from heliograph.jobs.command import application
from heliograph.jobs.notify import SECRET as VARIABLE
from heliograph.jobs.notify import notify
from tests.receiver import SECRET, Receiver, open_receiver
from tests.tracking_server import MlflowServer


@pytest.fixture
def receiver(server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    monkeypatch.setenv(VARIABLE, SECRET)
    with open_receiver() as receiver:
        yield receiver
        for told in json.loads(run("--json").stdout.splitlines()[-1])["receivers"]:
            run(told["url"], "--remove")


def run(*words: str) -> Result:
    return CliRunner().invoke(application(notify), list(words))


def test_set_up_list_and_remove(receiver: Receiver) -> None:
    assert run().stdout == "nobody is told of new champions\n"
    done = run(receiver.url, "--json")
    assert done.exit_code == 0, done.output
    assert "a test delivery was answered 200: thank you" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "url": receiver.url,
        "test": {"delivered": True, "answer": "200: thank you"},
    }
    assert SECRET not in done.output
    [line] = run().stdout.splitlines()
    assert line.endswith(f"  {receiver.url}")
    assert run(receiver.url, "--remove").stdout == f"{receiver.url} is told no more\n"
    again = run(receiver.url, "--remove")
    assert (again.exit_code, "nobody is" in again.stderr) == (2, True)


def test_a_receiver_that_refuses_is_said(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "not what the receiver has")
    done = run(receiver.url)
    assert done.exit_code == 1
    assert "but a test delivery failed: 401: who are you?" in done.stdout
    monkeypatch.setenv(VARIABLE, SECRET)
    assert run(receiver.url).exit_code == 0


@pytest.mark.parametrize(
    ("secret", "found"),
    [("", "is not set"), ("short", "has 5 characters"), ("x" * 257, "has 257 characters")],
)
def test_a_secret_is_needed(
    secret: str, found: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, secret)
    done = run(receiver.url)
    assert done.exit_code == 2
    assert f"{VARIABLE} {found}" in done.stderr
    assert secret == "" or secret not in done.output
    assert receiver.requests == []
    assert "is not told" in run(receiver.url, "--remove").stderr, "which needs no secret"
