"""A notice that a registered model has another champion, as its receiver checks and reads it.

MLflow's server sends one by HTTP for every alias that is set, signed with a secret that it shares
with the receiver (see `webhooks`). Imports nothing but Python's own library, so that a receiver can
import it, or take a copy of this file.
"""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass

ID, TIMESTAMP, SIGNATURE = "X-MLflow-Delivery-Id", "X-MLflow-Timestamp", "X-MLflow-Signature"

EVENT = "model_version_alias.created"
"""Which MLflow also calls it when an alias moves."""

CHAMPION = "champion"

TOLERANCE_SECONDS = 300.0
"""How far a delivery's time may be from the receiver's: it is not renewed when MLflow tries again,
and clocks differ."""


class NotGenuine(ValueError):
    """A delivery that is not the server's, or not of now: answer 401 and do nothing."""


@dataclass(frozen=True)
class Notice:
    """`version` of the registered model `name` is its champion, by promotion or by rollback.

    Attributes:
        delivery: the same when MLflow delivers a notice again because it got no answer.
    """

    name: str
    version: int
    delivery: str


def read_notice(
    headers: Mapping[str, str], body: bytes, secret: str, now: float | None = None
) -> Notice | None:
    """What a delivery says, if it is genuine; None: it is not about a champion.

    That is so of MLflow's test delivery and of other aliases, such as `challenger`. A server sends
    what happens to all of its models: compare `name`.

    Args:
        body: the request's body, byte for byte.
        now: seconds since 1970; None: this machine's clock.

    Raises:
        NotGenuine: see `verify`.
    """
    verify(headers, body, secret, time.time() if now is None else now)
    message = json.loads(body)
    data = message["data"]
    if f"{message['entity']}.{message['action']}" != EVENT or data["alias"] != CHAMPION:
        return None
    return Notice(data["name"], int(data["version"]), _header(headers, ID))


def verify(headers: Mapping[str, str], body: bytes, secret: str, now: float) -> None:
    """Check that a delivery was signed with `secret`, at about `now`.

    Compares in constant time. Whether a genuine delivery has come before is for the receiver to
    know, by its id.

    Raises:
        NotGenuine: it was not, or a header is missing.
        ValueError: the secret is empty, with which anybody could sign.
    """
    if not secret:
        raise ValueError("the secret is empty: anybody could sign with it")
    delivery, timestamp = _header(headers, ID), _header(headers, TIMESTAMP)
    # Without dots in the id it cannot be told in two ways where id, time and body are divided.
    if "." in delivery or not (timestamp.isascii() and timestamp.isdigit()):
        raise NotGenuine(f"{ID} {delivery!r} or {TIMESTAMP} {timestamp!r} is none")
    expected = sign(secret, delivery, timestamp, body)
    given = _header(headers, SIGNATURE)
    if not hmac.compare_digest(expected.encode(), given.encode(errors="replace")):
        raise NotGenuine(f"{SIGNATURE} is not that of this body, id and time by this secret")
    if abs(now - int(timestamp)) > TOLERANCE_SECONDS:
        raise NotGenuine(
            f"it was signed {now - int(timestamp):.0f} s ago, and {TOLERANCE_SECONDS:.0f} s are "
            "allowed: an old delivery sent again, or a clock that is wrong"
        )


def sign(secret: str, delivery: str, timestamp: str, body: bytes) -> str:
    """The signature that MLflow gives a delivery: HMAC-SHA-256 of its id, time and body."""
    signed = f"{delivery}.{timestamp}.".encode(errors="replace") + body
    digest = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def _header(headers: Mapping[str, str], name: str) -> str:
    """Whatever case its name is written in."""
    for key, value in headers.items():
        if key.lower() == name.lower():
            return value
    raise NotGenuine(f"header {name} is missing")
