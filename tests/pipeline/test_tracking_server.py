"""The driver waits a while for a server that is away, says so, and then says what to do."""

from collections.abc import Callable

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from pipeline.errors import RequestError
from pipeline.tracking_server import TrackingServerError, open_client, patiently
from tests.tracking_server import Door, MlflowServer, Mode
from tests.waiting import DEADLINE


@pytest.mark.parametrize("mode", ["refuses", "fails", "fails_after", "cuts", "hangs"])
def test_a_call_is_made_again_until_the_server_is_back(
    server: MlflowServer, door: Door, run_id: str, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    if mode == "hangs":
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    client, said = open_client(door.url), []

    def say(message: str) -> None:
        said.append(message)
        door.mode = "open"

    door.mode = mode
    patiently(lambda: client.log_text(run_id, "text", "a.txt"), say, "", DEADLINE)
    patiently(lambda: client.set_tag(run_id, "tag", "value"), say, "", DEADLINE)
    assert MlflowClient(server.url).get_run(run_id).data.tags["tag"] == "value"
    assert [entry.path for entry in MlflowClient(server.url).list_artifacts(run_id)] == ["a.txt"]
    (message,) = said
    assert message.startswith("the tracking server does not answer; trying for")


def test_patience_ends_with_what_to_do(door: Door, run_id: str) -> None:
    door.mode = "refuses"
    client, said = open_client(door.url), []
    with pytest.raises(TrackingServerError, match=r"for 2 s .*refused.*the same command goes on"):
        patiently(
            lambda: client.set_tag(run_id, "a", "b"),
            said.append,
            "the same command goes on from here",
            seconds=2.0,
        )
    assert len(said) == 1


def unknown_run(client: MlflowClient) -> None:
    client.set_tag("0" * 32, "a", "b")


def wrong_request(_: MlflowClient) -> None:
    raise RequestError("wrong")


def our_mistake(_: MlflowClient) -> None:
    raise TypeError("ours")


@pytest.mark.parametrize(
    ("call", "error"),
    [(unknown_run, MlflowException), (wrong_request, RequestError), (our_mistake, TypeError)],
)
def test_what_will_not_change_is_not_waited_for(
    door: Door, call: Callable[[MlflowClient], None], error: type[Exception]
) -> None:
    said: list[str] = []
    with pytest.raises(error):
        patiently(lambda: call(open_client(door.url)), said.append, "", seconds=60)
    assert said == []
