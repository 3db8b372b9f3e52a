"""The driver waits a while for a server that is away, says so, and then says what to do."""

import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.request.model_uri import check_name, sqlite_path, tracking_uri
from heliograph.pipeline.tracking.server import (
    TrackingServerError,
    create_experiment,
    open_client,
    open_store,
    patiently,
)
from tests import processes
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


class Refusing(BaseHTTPRequestHandler):
    """What stands before a server: it lets nobody in, or shows a page."""

    status, page = 401, b"who are you?"

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("content-length", str(len(self.page)))
        self.end_headers()
        self.wfile.write(self.page)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("status", "page", "message"),
    [
        (401, b"who are you?", "refuses who asks .*MLFLOW_TRACKING_USERNAME"),
        (403, b"not you", "refuses who asks .*MLFLOW_TRACKING_TOKEN"),
        (200, b"<!doctype html><title>log in</title>", "answers, but not as an MLflow server"),
        (404, b"<html>nothing here</html>", "answers, but not as an MLflow server"),
        (503, b"later", "does not answer .*start it"),
    ],
)
def test_why_a_server_cannot_be_used(
    status: int, page: bytes, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never "start it" for one that did answer (issue 15, 14)."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    handler = type("Handler", (Refusing,), {"status": status, "page": page})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with pytest.raises(RequestError, match=message):
                open_store(f"http://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("http://127.0.0.1:9", r"'http://127\.0\.0\.1:9' does not answer .*MLFLOW_TRACKING_URI"),
        ("file:./mlruns", "is a folder, and MLflow keeps no runs in folders .*sqlite:///"),
        ("./mlruns", "is a folder, and MLflow keeps no runs in folders .*sqlite:///"),
        ("htp://127.0.0.1", "cannot be used .*http://HOST:PORT"),
        ("sqlite:////proc/nowhere/mlflow.db", "cannot be used .*sqlite:///PATH"),
    ],
)
def test_a_misspelt_address_is_told_with_what_it_may_be(
    uri: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(RequestError, match=message):
        open_store(uri)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("revision", "message"),
    [
        ("451aebb31d03", "older MLflow .*mlflow db upgrade"),
        ("0" * 12, "newer release of MLflow than .*install that release"),
    ],
)
def test_a_store_of_another_release_is_left_as_it_is(
    revision: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "mlflow.db"
    open_store(f"sqlite:///{path}")
    with closing(sqlite3.connect(path)) as store, store:
        store.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    copy = tmp_path / "copy.db"
    shutil.copyfile(path, copy)
    with pytest.raises(RequestError, match=message):
        open_store(f"sqlite:///{copy}")
    with closing(sqlite3.connect(copy)) as store:
        assert store.execute("SELECT version_num FROM alembic_version").fetchall() == [(revision,)]


@pytest.mark.parametrize("name", ["50%20 #2 what?", "my project (ü) 'new'", "100% sure", "a%3Fb"])
def test_a_store_is_in_its_folder_whatever_that_is_called(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One folder had no models, though training had registered some (issue 15, 16)."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (folder := tmp_path / name).mkdir()
    monkeypatch.chdir(folder)
    open_store(tracking_uri()).create_registered_model("known")
    assert [path.name for path in folder.iterdir()] == ["mlflow.db"]
    assert sqlite_path(tracking_uri()) == folder / "mlflow.db"
    with pytest.raises(RequestError, match="did you mean 'known'"):
        check_name("knwn")


def open_and_tell(uri: str, told: Connection) -> None:
    told.send(open_store(uri).search_experiments()[0].name)


def test_processes_that_meet_no_database_make_one(tmp_path: Path) -> None:
    """Two first jobs in a new folder (issue 15, 14)."""
    pipes = [processes.context().Pipe(duplex=False) for _ in range(3)]
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    started = [
        processes.context().Process(target=open_and_tell, args=(uri, told)) for _, told in pipes
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(DEADLINE)
    assert [process.exitcode for process in started] == [0, 0, 0]
    assert {heard.recv() for heard, _ in pipes} == {"Default"}
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


@pytest.mark.parametrize("name", ["../../outside", "/etc/outside", "..", "a/b", "50% #1?", "üß"])
def test_an_experiment_s_artifacts_stay_in_the_store_whatever_it_is_called(
    name: str, tmp_path: Path
) -> None:
    """One that is named like a path wrote there (issue 15, 14)."""
    client = open_store(f"sqlite:///{tmp_path}/store/mlflow.db")
    run = client.create_run(create_experiment(client, name))
    client.log_text(run.info.run_id, "text", "a.txt")
    (written,) = tmp_path.rglob("a.txt")
    assert written.relative_to(tmp_path / "store" / "mlartifacts").parts[1:] == (
        run.info.run_id, "artifacts", "a.txt",
    )  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
