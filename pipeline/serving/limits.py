"""What one client may ask of the server, and how much may wait in it.

Imports nothing heavy: a mistake on the command line is answered at once.
"""

from typing import Any

from pydantic import Field, ValidationError

from heliograph.pipeline.request.data import Section
from heliograph.pipeline.request.errors import RequestError

TOKEN_VARIABLE = "HELIOGRAPH_SERVE_TOKEN"
"""The environment variable with the token that clients must show; never on a command line, which
every user of a machine can read."""


class Limits(Section):
    """Bounds on everything that a client chooses. What is beyond them is refused with a 4xx."""

    sentences: int = Field(64, ge=1)
    """Texts in one request. More: 413."""
    characters: int = Field(2000, ge=1)
    """Characters of one text. More: 413."""
    tokens: int = Field(256, ge=1)
    """Source tokens of one text, which bound the time that its translation can take. More: 413."""
    body_bytes: int = Field(2**20, ge=1024)
    """Of a request's body, which is never held beyond that. More: 413."""
    beam: int = Field(8, ge=1, le=64)
    """The widest beam, and the most alternatives, that a request may ask for. More: 422."""
    queue: int = Field(128, ge=1)
    """Texts that wait or are being translated, of all requests together. More: 429, which is better
    than to wait until `seconds` have passed in vain: a slow model or few replicas need less."""
    batch: int = Field(32, ge=1)
    """Texts that a replica translates together."""
    batch_wait_seconds: float = Field(0.002, ge=0, le=1)
    """How long an idle replica waits for company; while it is busy, a batch gathers by itself."""
    seconds: float = Field(30.0, gt=0)
    """For one answer. Later: 504."""
    read_seconds: float = Field(10.0, gt=0)
    """For a client to send its headers, and again for its body. Later: 408."""
    header_bytes: int = Field(32 * 2**10, ge=1024)
    """Of a request's line and headers. More: 431."""
    connections: int = Field(1000, ge=1)
    """Open at the same time. More: 503."""


def read_limits(**given: Any) -> Limits:
    """The limits; what is None, or left out, is as by default.

    Raises:
        RequestError: one is out of its range, or they contradict each other.
    """
    try:
        limits = Limits(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).replace("_", "-")
        raise RequestError(f"--{option} {first['input']!r}: {first['msg']}") from None
    if limits.queue < limits.sentences:
        raise RequestError(
            f"--queue {limits.queue}: a request of --sentences {limits.sentences} would never find "
            f"room; it must be at least {limits.sentences}"
        )
    return limits
