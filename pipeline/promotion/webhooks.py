"""Who is told of new champions: MLflow's webhooks, set up, listed and removed.

MLflow's server delivers them, from its own process and after it has answered whoever set the alias:
a receiver that is down never hinders a promotion, and may miss it. A webhook is for all models of a
server; `notice` is what a receiver makes of a delivery.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from mlflow.entities.webhook import Webhook
from mlflow.exceptions import MlflowException

from heliograph.pipeline.promotion.notice import EVENT
from heliograph.pipeline.registry.versions import open_registry
from heliograph.pipeline.request.errors import RequestError, did_you_mean, one_line
from heliograph.pipeline.request.model_uri import check_server, tracking_uri
from heliograph.pipeline.tracking.server import Client, is_away

NAME = "heliograph.champion"
"""Of the webhooks that are ours; MLflow lets many have one name."""

KEY = "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"
HINTS = {
    "Allowed schemes": "; a server that was started with MLFLOW_WEBHOOK_ALLOWED_SCHEMES=http,https "
    "takes both",
    "non-public IP": "; a server that was started with MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true "
    "delivers there too",
}
MISSING, NO_ENDPOINT = "RESOURCE_DOES_NOT_EXIST", "ENDPOINT_NOT_FOUND"
CONNECTIONS = 8

Result = TypeVar("Result")


@dataclass(frozen=True)
class Receiver:
    """Who is told.

    Attributes:
        since: when that was set up, in seconds since 1970.
        active: False: somebody has disabled it in MLflow.
    """

    url: str
    since: float
    active: bool


@dataclass(frozen=True)
class Delivery:
    """What a delivery came to: whether the receiver took it, and its `answer` in words."""

    delivered: bool
    answer: str


def add_receiver(url: str, secret: str) -> Delivery:
    """Have the server tell `url` of each new champion, signed with `secret`, and try it.

    Of a receiver that is told already the secret is replaced. What the test delivery comes to
    changes nothing: the receiver may be started later.

    Raises:
        RequestError: the store is no server or does not answer; the server refuses the URL, or
            cannot keep secrets.
    """
    client = _open()
    while True:
        try:
            return _add(client, url, secret)
        except MlflowException as error:
            if error.error_code != MISSING:  # another command found two and kept the other one
                raise


def remove_receiver(url: str) -> None:
    """Tell `url` no more.

    Raises:
        RequestError: it is not told; the store is no server or does not answer.
    """
    client = _open()
    found = _webhooks_of(client, url)
    if not found:
        told = {each.url for each in _webhooks(client)}
        raise RequestError(
            f"{url!r} is not told of new champions; "
            + (did_you_mean(url, told) if told else "nobody is")
        )
    for webhook in found:
        _delete(client, webhook)


def list_receivers() -> list[Receiver]:
    """Who is told of new champions, in the order in which that was set up.

    Raises:
        RequestError: the store is no server or does not answer.
    """
    return [
        Receiver(webhook.url, webhook.creation_timestamp / 1000, webhook.status.is_active())
        for webhook in _webhooks(_open())
    ]


def check_keeps_secrets() -> None:
    """Try it with a webhook that is disabled and removed at once.

    Raises:
        RequestError: the server cannot read what it keeps, or what others of its processes keep;
            the store is no server or does not answer.
    """
    client = _open()
    _webhooks(client)
    webhook = client.create_webhook(
        f"{NAME}.probe", "https://1.1.1.1/", [EVENT], secret="probe", status="DISABLED"
    )
    _check_secret_is_kept(client, webhook)
    client.delete_webhook(webhook.webhook_id)


def _open() -> Client:
    check_server()
    return open_registry()


def _add(client: Client, url: str, secret: str) -> Delivery:
    if not _webhooks_of(client, url):
        _check_secret_is_kept(client, _create(client, url, secret))
    # Oldest first: of two that were set up at the same moment both commands keep the same one.
    kept, *others = _webhooks_of(client, url)
    for other in others:
        _delete(client, other)
    client.update_webhook(kept.webhook_id, events=[EVENT], secret=secret, status="ACTIVE")
    _check_secret_is_kept(client, kept)
    return _try(client, kept)


def _create(client: Client, url: str, secret: str) -> Webhook:
    try:
        return client.create_webhook(NAME, url, [EVENT], secret=secret)
    except MlflowException as error:
        if is_away(error):
            raise
        hint = next((hint for words, hint in HINTS.items() if words in str(error)), "")
        raise RequestError(
            f"the tracking server refuses the URL {url!r} ({error.message}){hint}"
        ) from None


def _webhooks_of(client: Client, url: str) -> list[Webhook]:
    return [webhook for webhook in _webhooks(client) if webhook.url == url]


def _webhooks(client: Client) -> list[Webhook]:
    """Ours, oldest first."""
    found: list[Webhook] = []
    token = None
    while True:
        page = _readable(partial(client.list_webhooks, page_token=token))
        found += [webhook for webhook in page if webhook.name == NAME]
        token = page.token
        if not token:
            return sorted(found, key=lambda each: (each.creation_timestamp, each.webhook_id))


def _readable(read: Callable[[], Result]) -> Result:
    """Whoever comes here has just had an answer from the server, so that a failure of its own is of
    its webhooks: MLflow reads their secrets with each, and cannot without the key."""
    try:
        return read()
    except MlflowException as error:
        if error.error_code == NO_ENDPOINT:
            raise RequestError(
                f"the tracking server {tracking_uri()!r} knows no webhooks, and nothing else tells "
                "of new champions: they came with MLflow 3.3"
            ) from None
        if not is_away(error):
            raise
        raise RequestError(
            f"the tracking server cannot read its webhooks ({one_line(error)}): start it with the "
            f"{KEY} that they were written with; if there was none, nothing can read them any more:"
            " `UPDATE webhooks SET secret = NULL` in its database, start it with a key, and set "
            "the webhooks up again"
        ) from None


def _delete(client: Client, webhook: Webhook) -> None:
    try:
        client.delete_webhook(webhook.webhook_id)
    except MlflowException as error:
        if error.error_code != MISSING:  # another command was faster
            raise


def _check_secret_is_kept(client: Client, webhook: Webhook) -> None:
    """Without a key in its environment each process of a server makes up one of its own; none can
    read what another has written, and no webhook of the server is delivered any more.

    Of a server with one process this shows only when it is started again.
    """

    def succeeds(call: Callable[[str], object]) -> bool:
        try:
            call(webhook.webhook_id)
        except MlflowException as error:
            return not is_away(error)
        return True

    # At once, over as many connections, so that several processes answer.
    with ThreadPoolExecutor(CONNECTIONS) as connections:
        if all(connections.map(succeeds, [client.get_webhook] * 2 * CONNECTIONS)):
            return
        list(connections.map(succeeds, [client.delete_webhook] * 4 * CONNECTIONS))
    raise RequestError(
        f"the tracking server has no {KEY}, and its processes cannot read each other's secrets; "
        "start it with one, always the same (`python -c 'from cryptography.fernet import Fernet; "
        "print(Fernet.generate_key().decode())'` makes it), and give this command again"
    )


def _try(client: Client, webhook: Webhook) -> Delivery:
    try:
        result = client.test_webhook(webhook.webhook_id)
    except MlflowException as error:
        if not is_away(error):
            raise
        return Delivery(False, f"no answer in time ({one_line(error)})")
    if result.response_status is None:
        return Delivery(False, one_line(Exception(result.error_message)))
    said = one_line(Exception(result.response_body)) if result.response_body else ""
    answer = f"{result.response_status}" + (f": {said}" if said else "")
    return Delivery(bool(result.success), answer)
