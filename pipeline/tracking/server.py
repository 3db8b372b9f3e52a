"""The tracking server: reaching it, and waiting a while for one that does not answer."""

import fcntl
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from heliograph.pipeline.request.errors import RequestError, one_line
from heliograph.pipeline.request.model_uri import sqlite_path

Client: TypeAlias = MlflowClient
Answer = TypeVar("Answer")

PATIENCE_SECONDS = 300.0
_IS_A_PAGE = re.compile(r"<!doctype html|<html|JSONDecodeError|Expecting value|404", re.IGNORECASE)
GIVE_AGAIN = (
    "what was decided up to now is kept; give the same command again when the server is there: "
    "it completes what was begun"
)


class TrackingServerError(RuntimeError):
    """The tracking server did not answer, or refused what was sent. Exit code 1."""


def connect(uri: str) -> Client:
    """A client of the tracking server at `uri`, which the rest of this process uses too."""
    mlflow.set_tracking_uri(uri)
    return open_client(uri)


def open_store(uri: str) -> Client:
    """`connect`, and one answer from there, so that nothing is begun that could not be kept.

    Raises:
        RequestError: nobody answers, or not as MLflow does, or what is asked is refused.
    """
    try:
        with _first_alone(uri):
            client = connect(uri)
            client.search_experiments(max_results=1)
    except Exception as error:  # MLflow, SQLAlchemy, requests: whatever opens the store
        raise RequestError(_unusable(uri, error)) from error
    return client


@contextmanager
def _first_alone(uri: str) -> Iterator[None]:
    """Of several processes that meet no database, one makes it and the others wait."""
    path = sqlite_path(uri)
    if path is None or path.exists() or not path.parent.is_dir():
        yield
        return
    folder = os.open(path.parent, os.O_RDONLY)  # locked itself: no file is left behind
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _unusable(uri: str, error: Exception) -> str:
    """Why the store cannot be used, and what to change."""
    text, is_server = one_line(error), uri.startswith(("http://", "https://"))
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if isinstance(error, MlflowException):
        status = error.get_http_status_code()
    if status in (401, 403):
        return (
            f"tracking server {uri!r} refuses who asks ({text}): set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        )
    if is_server and _IS_A_PAGE.search(str(error)):
        return (
            f"{uri!r} answers, but not as an MLflow server does ({text}): correct "
            "MLFLOW_TRACKING_URI; behind a login page, set MLFLOW_TRACKING_TOKEN"
        )
    if is_server and is_away(error):
        return (
            f"tracking server {uri!r} does not answer ({text}); start it, or correct "
            "MLFLOW_TRACKING_URI"
        )
    if found := re.search(r"out-of-date database schema \(found version (\w+)", str(error)):
        if not _is_known(found[1]):
            return (
                f"tracking store {uri!r} was made by a newer release of MLflow than "
                f"{mlflow.__version__}, which is installed here, and was left as it is: install "
                "that release, or name another store by MLFLOW_TRACKING_URI"
            )
        return (
            f"tracking store {uri!r} was made by an older MLflow and was left as it is: back it "
            f"up, then `mlflow db upgrade {shlex.quote(uri)}`"
        )
    if "://" not in uri or uri.startswith("file:"):
        return (
            f"MLFLOW_TRACKING_URI {uri!r} is a folder, and MLflow keeps no runs in folders any "
            f"more; valid: sqlite:///PATH/mlflow.db, or http://HOST:PORT of a server ({text})"
        )
    return (
        f"tracking store {uri!r} cannot be used ({text}); MLFLOW_TRACKING_URI may be "
        "http://HOST:PORT, sqlite:///PATH/mlflow.db, or a database's URI such as postgresql://…"
    )


def _is_known(revision: str) -> bool:
    """Whether the installed MLflow knows that state of a database, which it then can bring up."""
    scripts = Path(mlflow.__file__).parent / "store" / "db_migrations" / "versions"
    return any(scripts.glob(f"{revision}_*.py"))


def open_client(uri: str) -> Client:
    """A client that does not wait long.

    MLflow's own retries keep a caller waiting for four minutes when a server is down; a variable
    that the user set wins over these.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    return Client(uri)


class PatientClient(MlflowClient):  # type: ignore[misc]  # MLflow's types are not looked at
    """A client whose calls wait for a server that is away, those that may be made twice.

    For commands that change little and must not stop halfway; training has queues instead.
    """

    READS = (
        "get_experiment_by_name",
        "get_logged_model",
        "get_model_version",
        "get_model_version_by_alias",
        "get_registered_model",
        "get_run",
        "list_artifacts",
        "search_experiments",
        "search_model_versions",
        "search_registered_models",
        "search_runs",
    )
    SETS = (
        "log_model_artifacts",
        "log_text",
        "set_logged_model_tags",
        "set_model_version_tag",
        "set_registered_model_alias",
        "set_tag",
    )

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name in PatientClient.READS:
            return partial(_waiting, patiently, found)
        if name in PatientClient.SETS:
            return partial(_waiting, insist, found)
        return found


def _waiting(how: Callable[..., Any], call: Callable[..., Any], *words: Any, **named: Any) -> Any:
    return how(partial(call, *words, **named), say, GIVE_AGAIN)


def create_experiment(client: Client, name: str, folder: str | None = None) -> str:
    """A new experiment's id.

    Without a server, artifacts lie beside the database, under `folder` or else `name`: MLflow's own
    default is a folder `mlruns`, whose mere presence switches it to another kind of store.
    """
    location = None
    if (database := sqlite_path(client.tracking_uri)) is not None:
        beside = database.resolve().parent / "mlartifacts"
        location = (beside / _as_one_folder(folder or name)).as_uri()
    # Without this MLflow's pages show the experiment as one of prompts and agents.
    kind = {"mlflow.experimentKind": "custom_model_development"}
    return str(client.create_experiment(name, artifact_location=location, tags=kind))


def _as_one_folder(name: str) -> str:
    """A name that stays inside the folder that it is made in, whatever it has in it."""
    plain = re.sub(r"[/\\:%#?\x00-\x1f]", lambda found: f"%{ord(found[0]):02X}", name)
    return plain if plain.strip(". ") else plain.replace(".", "%2E")


def patiently(
    call: Callable[[], Answer],
    say: Callable[[str], None],
    afterwards: str,
    seconds: float = PATIENCE_SECONDS,
) -> Answer:
    """The answer of `call`, which is made again for so long while the tracking server is away.

    `call` must be one that may be made twice: whether an attempt that failed took effect is not
    known.

    Args:
        say: tells the user, once, that there is a wait.
        afterwards: for the error's message: how things stand, and what can be done.

    Raises:
        TrackingServerError: the server was away for `seconds`.
        Exception: what `call` raised, when that is no sign of an absent server.
    """
    deadline, pause = time.monotonic() + seconds, 1.0
    while True:
        try:
            return call()
        except Exception as error:
            if not is_away(error):
                raise
            reason, left = one_line(error), deadline - time.monotonic()
            if left <= 0:
                raise TrackingServerError(
                    f"the tracking server did not answer for {seconds:.0f} s ({reason}); "
                    + afterwards
                ) from None  # else the command line would show what lies at the bottom
            if pause == 1.0:
                say(f"the tracking server does not answer; trying for {left:.0f} s ({reason})")
        time.sleep(min(pause, max(left, 0.1)))
        pause = min(2 * pause, 10.0)


def insist(call: Callable[[], Answer], say: Callable[[str], None], afterwards: str) -> Answer:
    """`patiently`, for setting what others may be setting at the same moment.

    Of two that set something for the first time the store refuses one, and takes it when it comes
    again.
    """

    def twice() -> Answer:
        try:
            return call()
        except MlflowException as error:
            if is_away(error):
                raise
            return call()

    return patiently(twice, say, afterwards)


def say(message: str) -> None:
    """To the person watching; standard output belongs to results."""
    print(message, file=sys.stderr, flush=True)


def is_away(error: Exception) -> bool:
    """Whether the same call may succeed later: no connection, no answer in time, a server error.

    MLflow gives what has no HTTP status the status 500.
    """
    if isinstance(error, RequestError):
        return False
    status = 500
    if isinstance(error, MlflowException):
        status = error.get_http_status_code()
    elif isinstance(error, OSError):  # as all of requests' are: artifacts go past MLflow's own
        status = getattr(getattr(error, "response", None), "status_code", 500)
    else:
        return False
    return status >= 500 or status in (408, 429)
