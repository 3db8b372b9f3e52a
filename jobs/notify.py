"""`heliograph notify URL`: has the tracking server tell a receiver of each new champion."""

import os
from dataclasses import asdict
from datetime import datetime
from typing import Annotated
from urllib.parse import urlsplit

import typer

from heliograph.jobs.command import DONE, FAILED, Answer, command, run_alone
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.request.model_uri import check_server

SECRET = "HELIOGRAPH_WEBHOOK_SECRET"
SECRET_LENGTH = range(16, 257)
URL_LIMIT = 500
"""Characters: the column that MLflow keeps it in."""

Url = Annotated[
    str | None,
    typer.Argument(metavar="URL", help="Who is to be told, https://HOST/PATH.", show_default=False),
]
Remove = Annotated[bool, typer.Option("--remove", help="Tell this URL no more.")]


@command
def notify(url: Url = None, remove: Remove = False) -> Answer:
    """Have the tracking server tell URL of each new champion; without URL, list who is told.

    Notices are signed with the secret in HELIOGRAPH_WEBHOOK_SECRET, which the receiver needs too;
    the same command with another secret replaces it. Exit code 1 when the test delivery fails.
    """
    if url is None and remove:
        raise RequestError("--remove needs the URL that is to be told no more")
    if url is not None:
        _check_url(url)
    check_server()
    if url is None:
        return _list()
    secret = "" if remove else _read_secret()
    from heliograph.pipeline.promotion import webhooks

    if remove:
        webhooks.remove_receiver(url)
        return Answer(f"{url} is told no more", {"url": url})
    test = webhooks.add_receiver(url, secret)
    lines = [f"{url} is told of each new champion of any model, within a minute from now"]
    if test.delivered:
        lines.append(f"a test delivery was answered {test.answer}")
    else:
        lines.append(f"but a test delivery failed: {test.answer}")
        lines.append("the same command tries again")
    code = DONE if test.delivered else FAILED
    return Answer("\n".join(lines), {"url": url, "test": asdict(test)}, exit_code=code)


def _list() -> Answer:
    from heliograph.pipeline.promotion import webhooks

    receivers = webhooks.list_receivers()
    lines = []
    for receiver in receivers:
        when = datetime.fromtimestamp(receiver.since).astimezone().isoformat(" ", "seconds")
        lines.append(f"{when}  {receiver.url}" + ("" if receiver.active else "  (disabled)"))
    return Answer(
        "\n".join(lines) or "nobody is told of new champions",
        {"receivers": [asdict(receiver) for receiver in receivers]},
    )


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        valid = False
    if not valid or len(url) > URL_LIMIT or any(character.isspace() for character in url):
        raise RequestError(
            f"URL {url!r} must read https://HOST/PATH, in at most {URL_LIMIT} characters"
        )


def _read_secret() -> str:
    secret = os.environ.get(SECRET, "")
    if len(secret) not in SECRET_LENGTH:
        found = f"has {len(secret)} characters" if secret else "is not set"
        raise RequestError(
            f"{SECRET} {found}: it holds the secret that notices are signed with, of "
            f"{SECRET_LENGTH.start} to {SECRET_LENGTH.stop - 1} characters; "
            f"`export {SECRET}=$(openssl rand -hex 32)` makes one"
        )
    return secret


if __name__ == "__main__":
    run_alone(notify)
