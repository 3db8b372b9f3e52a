"""The alias `champion` follows the ledger, whoever was killed while moving it.

An alias cannot be moved on a condition, so a slow promoter may set it to what was decided before
the newest decision. It then looks again and corrects that; if it is killed before, its pending mark
tells the next command that nobody moved the alias by hand.
"""

import json
import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from mlflow.exceptions import MlflowException

from heliograph.pipeline.promotion.ledger import Ledger, Page, Pending, Record, new_pending
from heliograph.pipeline.registry.versions import CHALLENGER
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.tracking.server import GIVE_AGAIN, PatientClient, insist, say

CHAMPION = "champion"

DECISION = "heliograph.decision."
"""And its number: a tag of the version that was decided about."""

FORGOTTEN_SECONDS = 120.0
"""A pending mark as old as this is of a dead writer, and what it left half done was just repaired.
Until then an alias that was moved by hand to the same version is taken for that writer's doing."""

DOUBTS = 4


@dataclass(frozen=True)
class Standing:
    """How things stand, with nothing half done.

    Attributes:
        number: of the last decision; 0: there was none.
        champion: who has the alias; None: nobody.
        opponent: whom a candidate is held against: the champion or, where that was deleted, the
            last one before it that is still there; None: there is none.
        champions: who had it, oldest first, up to the present one.
        rolled_back: whom a rollback took it from.
        pinned: the evaluation sets that have names.
    """

    number: int = 0
    champion: int | None = None
    opponent: int | None = None
    champions: list[int] = field(default_factory=list)
    rolled_back: set[int] = field(default_factory=set)
    pinned: dict[str, dict[str, Any]] = field(default_factory=dict)

    def as_decided(self) -> "Standing":
        """Without regard to an alias that was moved by hand: what is there to be confirmed is held
        against the last decision, not against itself."""
        champion = self.champions[-1] if self.champions else None
        return replace(self, champion=champion, opponent=champion)


def settle(
    client: PatientClient, ledger: Ledger, *, own: Pending | None = None, by_hand: bool = False
) -> Standing:
    """Complete what was decided: alias and tags.

    Args:
        own: the mark under which the caller has just decided.
        by_hand: an alias that was moved by hand stays, for a caller who is about to say otherwise.

    Raises:
        RequestError: the alias was moved by hand.
    """
    doubts = 0
    while True:
        page = ledger.read()
        actual = champion_of(client, ledger.name)
        expected = page.champions[-1] if page.champions else None
        if actual != expected and not _exists(client, ledger.name, expected):
            if actual is None:  # the champion was deleted, and its alias with it
                return _complete(client, ledger, page, None)
            ledger.decide(_found(page, actual))
        elif actual == expected:
            return _complete(client, ledger, page, actual)
        elif ledger.read() != page:
            continue  # somebody was deciding while we looked
        elif _explained(page, actual, own):
            _move(client, ledger, own)
        elif by_hand:
            return _complete(client, ledger, page, actual)
        elif (doubts := doubts + 1) == DOUBTS:
            raise _by_hand(ledger.name, actual, expected, page.records[-1])
        else:
            time.sleep(0.3)  # for a writer whose mark is just being removed


def standing_without_ledger(client: PatientClient, name: str) -> Standing:
    """Of a model about which nothing was decided yet."""
    champion = champion_of(client, name)
    champions = [] if champion is None else [champion]
    return Standing(champion=champion, opponent=champion, champions=champions)


def champion_of(client: PatientClient, name: str) -> int | None:
    """Who has the alias."""
    number = client.get_registered_model(name).aliases.get(CHAMPION)
    return None if number is None else int(number)


def _explained(page: Page, actual: int | None, own: Pending | None) -> bool:
    """Whether the alias is where it is because a writer has not come to moving it, or was slow."""
    decided = {record.id for record in page.records}
    newest = [record.id for record in page.records if record.promoted][-1]
    pending = [*page.pending, *([own] if own else [])]
    return any(
        mark.id == newest or (mark.version == actual and (mark.repair or mark.id in decided))
        for mark in pending
    )


def _move(client: PatientClient, ledger: Ledger, own: Pending | None) -> None:
    """To the newest decision, read once more; the caller looks whether it is there then."""
    mark = own
    if mark is None:
        mark = new_pending(ledger.read().champions[-1])
        ledger.begin(mark)

    def move() -> None:
        newest = ledger.read().champions[-1]
        client.set_registered_model_alias(ledger.name, CHAMPION, str(newest))

    try:
        insist(move, say, GIVE_AGAIN)
    except MlflowException:
        if _exists(client, ledger.name, ledger.read().champions[-1]):
            raise
    if own is None:
        ledger.end(mark)


def _complete(client: PatientClient, ledger: Ledger, page: Page, champion: int | None) -> Standing:
    """What follows from decisions whose writers may have been killed before they came to that."""
    marks = {mark.id: mark for mark in page.pending}
    for record in page.records:
        if record.id in marks:
            if record.kind == "rollback":
                _withdraw(client, ledger.name, record.previous)
            _tag(client, ledger.name, record)
    for mark in page.pending:
        if mark.time < time.time() - FORGOTTEN_SECONDS:
            ledger.end(mark)
    opponent = champion
    if opponent is None:
        former = reversed(page.champions)
        opponent = next((each for each in former if _exists(client, ledger.name, each)), None)
    return Standing(
        len(page.records), champion, opponent, page.champions, page.rolled_back, page.pinned
    )


def _withdraw(client: PatientClient, name: str, version: int | None) -> None:
    """Who was rolled back is no challenger any more. A newer one may be registered meanwhile and
    lose the alias here: the newest version is what is judged without it."""
    if int(client.get_registered_model(name).aliases.get(CHALLENGER, 0)) == version:
        client.delete_registered_model_alias(name, CHALLENGER)


def _tag(client: PatientClient, name: str, record: Record) -> None:
    key = f"{DECISION}{record.number:06d}"
    value = json.dumps(asdict(record), ensure_ascii=False, sort_keys=True)
    try:
        client.set_model_version_tag(name, str(record.version), key, value)
    except MlflowException:
        if _exists(client, name, record.version):
            raise


def _found(page: Page, champion: int) -> Record:
    why = "a deleted version had been champion" if page.records else "the record begins here"
    number = len(page.records) + 1
    return Record(
        number=number,
        id=f"found-{number}-{champion}",
        time=time.time(),
        kind="found",
        promoted=True,
        version=champion,
        champion=champion,
        previous=None,
        reason=f"version {champion} is champion; {why}",
    )


def _exists(client: PatientClient, name: str, version: int | None) -> bool:
    if version is None:
        return False
    query = f"name = '{name}' and version_number = {version}"
    return bool(client.search_model_versions(query))


def _by_hand(name: str, actual: int | None, expected: int | None, last: Record) -> RequestError:
    if actual is None:
        there, way_on = "was removed", ""
    else:
        there = f"was moved to version {actual}"
        way_on = f", `heliograph promote {name} --version {actual} --force --why …` confirms it"
    return RequestError(
        f"the alias 'champion' of {name!r} {there} by hand, past the gate: decision {last.number} "
        f"says that version {expected} has it; `heliograph rollback {name} --version {expected}` "
        f"gives it back{way_on}"
    )
