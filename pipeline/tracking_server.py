"""The tracking server: reaching it, and waiting a while for one that does not answer."""

import os
import time
from collections.abc import Callable
from typing import TypeAlias, TypeVar

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from pipeline.errors import RequestError

Client: TypeAlias = MlflowClient
Answer = TypeVar("Answer")

PATIENCE_SECONDS = 300.0


class TrackingServerError(RuntimeError):
    """The tracking server did not answer, or refused what was sent. Exit code 1."""


def connect(uri: str) -> Client:
    """A client of the tracking server at `uri`, which the rest of this process uses too."""
    mlflow.set_tracking_uri(uri)
    return open_client(uri)


def open_client(uri: str) -> Client:
    """A client that does not wait long.

    MLflow's own retries keep a caller waiting for four minutes when a server is down; a variable
    that the user set wins over these.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    return Client(uri)


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


def one_line(error: Exception) -> str:
    """What a client said, without its line breaks; of a long one its beginning, which names the
    address, and its end, which names the cause."""
    text = " ".join(str(error).split())
    return text if len(text) <= 220 else f"{text[:100]} … {text[-100:]}"
