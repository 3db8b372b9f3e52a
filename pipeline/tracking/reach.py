"""Whether the tracking server is one for all nodes.

Workers report to it from wherever they are, and a finished model is scored and registered on a node
that the driver does not choose (issue 17, 3).
"""

import os
from urllib.parse import urlsplit

from heliograph.pipeline.cluster.nodes import ask_all, blind_to, has_others, in_words
from heliograph.pipeline.cluster.start import GROWS_TO
from heliograph.pipeline.request.errors import RequestError, one_line
from heliograph.pipeline.request.model_uri import sqlite_path
from heliograph.pipeline.tracking.server import open_client, patiently, say

_HERE = ("localhost", "127.0.0.1", "::1")
_VALID = "valid: the address of a server that they all reach, such as http://HOST:5000"


def check_reached(uri: str) -> None:
    """That every node can report to where runs are kept; alone, a node always can.

    Raises:
        RequestError: one cannot, or what is named is another thing on each of the nodes to come.
    """
    if not has_others():
        return
    database = sqlite_path(uri)
    if GROWS_TO in os.environ and (database is not None or urlsplit(uri).hostname in _HERE):
        raise RequestError(
            f"MLFLOW_TRACKING_URI {uri!r} is on this node, and the cluster's other nodes, which "
            f"are still to come, would look for it on themselves; {_VALID}"
        )
    if database is not None:
        if blind := blind_to(str(database.parent)):
            raise RequestError(
                f"MLFLOW_TRACKING_URI {uri!r} is a file on this node, and {blind} cannot see it; "
                f"{_VALID}"
            )
        return
    while refused := {name: why for name, why in ask_all(_refusal, uri).items() if why}:
        if _refusal(uri) is None:
            name, why = next(iter(refused.items()))
            raise RequestError(
                f"MLFLOW_TRACKING_URI {uri!r} answers here, and not on {in_words([*refused])} "
                f"({name}: {why}); {_VALID}"
            )
        # It went away just now, which has nothing to do with the nodes.
        patiently(lambda: _ask(uri), say, "nothing has begun: give the same command again")


def _refusal(uri: str) -> str | None:
    """Why it does not answer on this machine; None: it does."""
    try:
        _ask(uri)
    except Exception as error:  # MLflow, SQLAlchemy, requests: whatever opens the store
        return one_line(error)
    return None


def _ask(uri: str) -> None:
    open_client(uri).search_experiments(max_results=1)
