"""Secrets on their way to a job, sealed with the token of its cluster.

A job's environment variables are no secret: Ray shows them in its job API and writes them to the
logs of every node. So what is secret travels as one variable that only the cluster's token opens,
and whoever has that token may run anything there anyway.
"""

import base64
import json
import os
import secrets
from collections.abc import Mapping

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

SEALED = "HELIOGRAPH_SEALED"
"""The variable that they travel in."""
SALT_BYTES = 16


def seal(values: Mapping[str, str], token: str) -> str:
    """Variables as one text, which says nothing without the token and is another one each time."""
    salt = secrets.token_bytes(SALT_BYTES)
    sealed = Fernet(_key(token, salt)).encrypt(json.dumps(dict(values)).encode())
    return f"{base64.urlsafe_b64encode(salt).decode()}.{sealed.decode()}"


def unseal(text: str, token: str) -> dict[str, str]:
    """What was sealed; raises ValueError for another token or a changed text."""
    salt, _, sealed = text.partition(".")
    try:
        opened = Fernet(_key(token, base64.urlsafe_b64decode(salt))).decrypt(sealed)
    except InvalidToken:
        raise ValueError("this node's Ray token is not the one that the job came with") from None
    values: dict[str, str] = json.loads(opened)
    return values


def unseal_environment() -> None:
    """Open what came with the job, as the first thing that each of its processes does: Ray's by a
    hook, and the driver, for which Ray has none, by itself.

    Raises:
        ValueError: this node has another token than the job's sender.
    """
    if text := os.environ.get(SEALED):
        for name, value in unseal(text, ray_token()).items():
            os.environ[name] = value


def ray_token() -> str:
    """The token that Ray uses in this process, wherever it has it from; "" without one."""
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]  # is C

    header = AuthenticationTokenLoader.instance().get_token_for_http_header()
    return str(header.get("authorization", "")).removeprefix("Bearer ")


def _key(token: str, salt: bytes) -> bytes:
    """Slow to compute, because a token that people made up can be guessed."""
    key = Scrypt(salt=salt, length=32, n=2**14, r=8, p=1).derive(token.encode())
    return base64.urlsafe_b64encode(key)
