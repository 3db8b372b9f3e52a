"""Notices of new champions, from a real server to a receiver that checks them."""

import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from heliograph.pipeline.promotion.notice import NotGenuine, Notice, read_notice
from heliograph.pipeline.promotion.promote import promote, rollback
from heliograph.pipeline.promotion.webhooks import add_receiver, list_receivers, remove_receiver
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.request.rules import AnyRule, Size
from tests.pipeline.conftest import MakeModel
from tests.pipeline.model_store import Store
from tests.receiver import SECRET, Receiver, open_receiver
from tests.tracking_server import SENDS_NOTICES, Door, MlflowServer

ANY: list[AnyRule] = [Size(megabytes=100)]
WITHOUT_KEY = {name: value for name, value in SENDS_NOTICES.items() if not name.endswith("_KEY")}


@pytest.fixture
def receiver(server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A receiver, and the server as the configured store; afterwards nobody is told."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    with open_receiver() as receiver:
        yield receiver
        for told in list_receivers():
            remove_receiver(told.url)


def wait_for_cache() -> None:
    """The server looks for new webhooks when what it knows is older than this."""
    time.sleep(float(SENDS_NOTICES["MLFLOW_WEBHOOK_CACHE_TTL"]) + 0.2)


def test_a_promotion_is_told_signed(
    receiver: Receiver, tmp_path: Path, make_model: MakeModel
) -> None:
    store = Store(tmp_path, "noticed")
    store.register_like(make_model(1), 2)
    delivery = add_receiver(receiver.url, SECRET)
    assert (delivery.delivered, delivery.answer) == (True, "200: thank you")
    assert (receiver.others, receiver.notices) == (1, []), "the test is no notice"
    wait_for_cache()

    assert promote("noticed", version=1, rules=ANY).promoted
    receiver.wait_for(lambda: len(receiver.notices) == 1)
    assert not promote("noticed", version=2, rules=[Size(megabytes=0.001)]).promoted
    assert promote("noticed", version=2, rules=ANY).promoted
    receiver.wait_for(lambda: len(receiver.notices) == 2)
    rollback("noticed")
    receiver.wait_for(lambda: len(receiver.notices) == 3)
    assert [(each.name, each.version) for each in receiver.notices] == [
        ("noticed", version) for version in (1, 2, 1)
    ]
    assert len({each.delivery for each in receiver.notices}) == 3
    assert receiver.refused == []

    headers, body = receiver.requests[-1]
    assert isinstance(read_notice(headers, body, SECRET), Notice)
    for other_body, other_secret in ((body.replace(b'"1"', b'"2"'), SECRET), (body, SECRET + "!")):
        with pytest.raises(NotGenuine):
            read_notice(headers, other_body, other_secret)
    with pytest.raises(NotGenuine, match="s ago"):
        read_notice(headers, body, SECRET, now=time.time() + 400)


def test_a_challenger_is_no_notice(
    receiver: Receiver, tmp_path: Path, make_model: MakeModel
) -> None:
    add_receiver(receiver.url, SECRET)
    wait_for_cache()
    Store(tmp_path, "candidates").register(make_model(1))
    receiver.wait_for(lambda: receiver.others == 2)
    assert receiver.notices == []


def test_a_receiver_that_is_down_hinders_nobody(
    receiver: Receiver, tmp_path: Path, make_model: MakeModel
) -> None:
    store = Store(tmp_path, "unheard")
    store.register_like(make_model(1), 1)
    with open_receiver() as gone:
        url = gone.url
    delivery = add_receiver(url, SECRET)
    assert not delivery.delivered
    assert "Connection refused" in delivery.answer
    assert url in [told.url for told in list_receivers()], "it may be started later"
    add_receiver(receiver.url, SECRET)
    wait_for_cache()

    before = len(receiver.requests)
    receiver.awake.clear()
    assert promote("unheard", rules=ANY).champion == store.alias("champion") == 1
    receiver.wait_for(lambda: len(receiver.requests) == before + 1)
    receiver.awake.set()
    receiver.wait_for(lambda: receiver.notices != [])
    assert len(receiver.requests) == before + 1, "nobody waited, and came again"


def test_a_notice_comes_again_after_an_error(
    receiver: Receiver, tmp_path: Path, make_model: MakeModel
) -> None:
    store = Store(tmp_path, "repeated")
    store.register_like(make_model(1), 1)
    add_receiver(receiver.url, SECRET)
    wait_for_cache()
    before = len(receiver.requests)
    receiver.broken = True
    promote("repeated", rules=ANY)
    receiver.wait_for(lambda: len(receiver.requests) > before)
    receiver.broken = False
    receiver.wait_for(lambda: receiver.notices != [])
    [notice] = receiver.notices
    assert {headers["X-MLflow-Delivery-Id"] for headers, _ in receiver.requests[before:]} == {
        notice.delivery
    }


def test_the_same_url_is_told_once(receiver: Receiver) -> None:
    with ThreadPoolExecutor(4) as commands:
        list(commands.map(lambda _: add_receiver(receiver.url, SECRET), range(4)))
    add_receiver(receiver.url, SECRET)
    [told] = list_receivers()
    assert (told.url, told.active) == (receiver.url, True)
    assert abs(told.since - time.time()) < 120


def test_the_secret_is_replaced(receiver: Receiver) -> None:
    add_receiver(receiver.url, SECRET)
    receiver.secret = "another secret from now on"
    delivery = add_receiver(receiver.url, SECRET)
    assert (delivery.delivered, delivery.answer) == (False, "401: who are you?")
    assert add_receiver(receiver.url, receiver.secret).delivered


def test_what_others_set_up_stays_theirs(receiver: Receiver, server: MlflowServer) -> None:
    client = MlflowClient(server.url)
    theirs = client.create_webhook("theirs", receiver.url, ["registered_model.created"])
    add_receiver(receiver.url, SECRET)
    [own] = [each for each in client.list_webhooks() if each.webhook_id != theirs.webhook_id]
    client.update_webhook(own.webhook_id, status="DISABLED")
    assert [told.active for told in list_receivers()] == [False]
    add_receiver(receiver.url, SECRET)
    assert [told.active for told in list_receivers()] == [True]
    remove_receiver(receiver.url)
    assert [each.name for each in client.list_webhooks()] == ["theirs"]
    client.delete_webhook(theirs.webhook_id)


def test_who_is_not_told_cannot_be_removed(receiver: Receiver) -> None:
    with pytest.raises(RequestError, match="is not told of new champions; nobody is"):
        remove_receiver(receiver.url)
    add_receiver(receiver.url, SECRET)
    with pytest.raises(RequestError, match=f"did you mean '{receiver.url}'"):
        remove_receiver(receiver.url + "s")
    remove_receiver(receiver.url)
    assert list_receivers() == []


def test_a_store_without_server_tells_nobody(store: Store) -> None:
    for call in (list_receivers, lambda: add_receiver("https://a.example/", SECRET)):
        with pytest.raises(RequestError, match=r"'sqlite:///.*is no server.*mlflow server"):
            call()


def test_a_server_of_before_there_were_webhooks(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", door.url)
    door.lacks = "/webhooks"
    for call in (list_receivers, lambda: add_receiver("https://a.example/", SECRET)):
        with pytest.raises(RequestError, match=r"knows no webhooks.*MLflow 3\.3"):
            call()


@pytest.fixture
def starting(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., MlflowServer]]:
    """Starts a server on this test's store, now the configured one, in place of the last one."""
    shutil.copyfile(empty_store, tmp_path / "server.db")  # whose tables take long to make
    started: list[MlflowServer] = []

    def start(environment: dict[str, str], workers: int = 1) -> MlflowServer:
        for server in started:
            server.kill()
        server = MlflowServer(tmp_path, environment=environment, workers=workers)
        started.append(server)
        server.start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        return server

    yield start
    for server in started:
        server.kill()


@pytest.mark.faults
def test_a_server_as_it_comes(starting: Callable[..., MlflowServer], tmp_path: Path) -> None:
    """One process without a key reads what it wrote itself, until it is started again."""
    starting(WITHOUT_KEY)
    with open_receiver() as receiver:
        assert add_receiver(receiver.url, SECRET).delivered
    starting({})
    for call in (list_receivers, lambda: add_receiver(receiver.url, SECRET)):
        with pytest.raises(RequestError, match=r"cannot read its webhooks.*ENCRYPTION_KEY"):
            call()
    with closing(sqlite3.connect(tmp_path / "server.db")) as database, database:
        database.execute("UPDATE webhooks SET secret = NULL")
    remove_receiver(receiver.url)

    with pytest.raises(RequestError, match=r"'http'.*MLFLOW_WEBHOOK_ALLOWED_SCHEMES=http,https"):
        add_receiver("http://a.example/", SECRET)
    with pytest.raises(RequestError, match=r"127.0.0.1.*MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true"):
        add_receiver("https://127.0.0.1/", SECRET)
    with pytest.raises(RequestError, match=r"'nobody.invalid'"):
        add_receiver("https://nobody.invalid/", SECRET)
    assert list_receivers() == []


@pytest.mark.faults
def test_processes_that_cannot_read_each_other_s_secrets(
    starting: Callable[..., MlflowServer],
) -> None:
    starting(WITHOUT_KEY, workers=4)  # as many as MLflow starts by default
    with open_receiver() as receiver:
        with pytest.raises(RequestError, match="no MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"):
            add_receiver(receiver.url, SECRET)
        assert receiver.requests == []
    assert list_receivers() == [], "what could not be kept is gone, and the store is sound"
