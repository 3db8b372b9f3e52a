"""The ledger of a registered model: every decision about its champion, in one order, for good.

MLflow has no compare-and-swap for an alias. But a parameter of a run is written once: the store has
a unique key on it, and a second, other value is refused. So a decision is a parameter
`decision.NUMBER` of one run per registered model, and whoever writes the next number first has
decided; the decision and its record are one write. The alias `champion` follows from the ledger
(see `settling.settle`), and can be set again from it at any time.

Before a decision is written, a tag `pending.ID` says that its writer will also move the alias and
tag the version; it is removed when all that is done. What a killed writer left is found by it.
"""

import json
import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException

from heliograph.pipeline.request.errors import RequestError, one_line
from heliograph.pipeline.tracking.server import (
    GIVE_AGAIN,
    PatientClient,
    create_experiment,
    patiently,
    say,
)

Kind = Literal["gate", "force", "rollback", "found"]
"""found: nobody decided, the alias was there: before the ledger was, or after the version that was
to have it had been deleted."""

LEDGER_OF = "heliograph.ledger"
"""A tag of the ledger's run: the registered model's name."""

DECISION, PENDING, PINNED = "decision.", "pending.", "set."
PARAMETER_LIMIT = 6000
"""Characters that MLflow takes as a parameter's value; it cuts off the rest without a word."""


@dataclass(frozen=True)
class Record:
    """One decision.

    Attributes:
        number: from 1.
        id: of the request; its report lies under `decisions/ID` in the version's run.
        time: seconds since 1970.
        promoted: `champion` moved, or was to move.
        version: what was decided about.
        champion: who has the alias by this decision.
        previous: who had it before.
        why: what the user said for it.
        verdicts: the rules' kinds, verdicts and figures.
        evaluation: digests of the sets that were looked at, by name.
        details: recipe and code of the version, and how often the request was judged anew.
    """

    number: int
    id: str
    time: float
    kind: Kind
    promoted: bool
    version: int
    champion: int | None
    previous: int | None
    reason: str
    why: str | None = None
    who: dict[str, str] = field(default_factory=dict)
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    evaluation: dict[str, str] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def author(self) -> str:
        """Who decided, as `user@host`, and on a cluster in which job."""
        place = "@".join(self.who[key] for key in ("user", "host") if key in self.who) or "nobody"
        return f"{place}, job {self.who['job']}" if "job" in self.who else place


@dataclass(frozen=True)
class Pending:
    """Somebody is about to move the alias to `version`. Of a repair the id is in no decision."""

    id: str
    version: int | None
    repair: bool
    time: float


@dataclass(frozen=True)
class Page:
    """What the ledger says at one moment."""

    records: list[Record]
    pending: list[Pending]
    pinned: dict[str, dict[str, Any]]

    @property
    def champions(self) -> list[int]:
        """Who was champion, oldest first and without those that were rolled back; the last is the
        present one."""
        stack: list[int] = []
        for record in self.records:
            if not record.promoted:
                continue
            if record.kind in ("rollback", "found") and record.version in stack:
                while stack[-1] != record.version:
                    stack.pop()
            elif stack[-1:] != [record.version]:
                stack.append(record.version)
        return stack

    @property
    def rolled_back(self) -> set[int]:
        """Champions that a rollback ended, and that were not champion again since."""
        versions: set[int] = set()
        for record in self.records:
            if record.kind == "rollback" and record.previous is not None:
                versions.add(record.previous)
            if record.promoted:
                versions.discard(record.version)
        return versions


class Ledger:
    """Opened by `open_ledger`. Every write may be repeated: the second time changes nothing."""

    def __init__(self, client: PatientClient, name: str, run_id: str) -> None:
        self._client = client
        self.name = name
        self.run_id = run_id

    def read(self) -> Page:
        data = self._client.get_run(self.run_id).data
        params, tags = data.params, data.tags
        decisions = sorted(key for key in params if key.startswith(DECISION))
        return Page(
            records=[Record(**json.loads(params[key])) for key in decisions],
            pending=[
                Pending(id=key.removeprefix(PENDING), **json.loads(value))
                for key, value in sorted(tags.items())
                if key.startswith(PENDING)
            ],
            pinned={
                key.removeprefix(PINNED): json.loads(value)
                for key, value in sorted(params.items())
                if key.startswith(PINNED)
            },
        )

    def decide(self, record: Record) -> bool:
        """Write the decision; False: another one has its number."""
        return self._write_once(f"{DECISION}{record.number:06d}", _to_json(record))

    def pin(self, name: str, description: Mapping[str, Any]) -> bool:
        """Give an evaluation set its name; False: another one has it."""
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", name):
            raise RequestError(
                f"evaluation set {name!r}: a name has letters, digits, '_', '-' and '.' only"
            )
        return self._write_once(PINNED + name, json.dumps(description, sort_keys=True))

    def begin(self, pending: Pending) -> None:
        value = {key: value for key, value in asdict(pending).items() if key != "id"}
        self._client.set_tag(self.run_id, PENDING + pending.id, json.dumps(value))

    def end(self, pending: Pending) -> None:
        """Also of one that has ended already."""

        def remove() -> None:
            try:
                self._client.delete_tag(self.run_id, PENDING + pending.id)
            except MlflowException:
                if any(each.id == pending.id for each in self.read().pending):
                    raise

        patiently(remove, say, GIVE_AGAIN)

    def _write_once(self, key: str, value: str) -> bool:
        """Whether the parameter now has this value."""

        def write() -> None:
            try:
                self._client.log_param(self.run_id, key, value)
            except MlflowException:
                # Refused, or it is not known whether it took effect: what is there decides.
                found = self._client.get_run(self.run_id).data.params.get(key)
                if found is None:
                    raise

        patiently(write, say, GIVE_AGAIN)
        return bool(self._client.get_run(self.run_id).data.params.get(key) == value)


def open_ledger(client: PatientClient, name: str) -> Ledger:
    """The one ledger of a registered model, made if there is none.

    It is a run in an experiment of its own. Experiments have unique names, so it is made under a
    name that nobody else uses and then renamed: whose renaming succeeds has made the ledger.

    Raises:
        RequestError: it was deleted.
    """
    if (ledger := find_ledger(client, name)) is not None:
        return ledger
    title = ledger_title(name)
    experiment = create_experiment(
        client, f"{title} ({uuid.uuid4().hex})", folder=f"{name}-champions"
    )
    run = client.create_run(experiment, tags={LEDGER_OF: name}, run_name="decisions")
    client.update_run(run.info.run_id, status="FINISHED")
    try:
        client.rename_experiment(experiment, title)
    except MlflowException:  # the name is taken, or it is not known
        ledger = find_ledger(client, name)
        if ledger is None:
            raise
        if ledger.run_id != run.info.run_id:
            client.delete_experiment(experiment)
        return ledger
    return Ledger(client, name, run.info.run_id)


def find_ledger(client: PatientClient, name: str) -> Ledger | None:
    """The ledger if there is one; raises RequestError when it was deleted."""
    title = ledger_title(name)
    experiment = client.get_experiment_by_name(title)
    if experiment is None:
        return None
    number = experiment.experiment_id
    if experiment.lifecycle_stage != "active":
        raise RequestError(
            f"the record of who was champion of {name!r}, experiment {title!r}, was deleted; "
            f"`mlflow experiments restore --experiment-id {number}` brings it back"
        )
    runs = client.search_runs([number], f"tags.`{LEDGER_OF}` = '{name}'", ViewType.ALL)
    if not runs or runs[0].info.lifecycle_stage != "active":
        way_on = f"`mlflow runs restore --run-id {runs[0].info.run_id}`" if runs else "a backup"
        raise RequestError(
            f"the record of who was champion of {name!r}, the run in experiment {title!r}, was "
            f"deleted; {way_on} brings it back"
        )
    return Ledger(client, name, runs[0].info.run_id)


def ledger_title(name: str) -> str:
    """The experiment's name."""
    return f"{name}: champions"


def new_pending(version: int | None, *, id: str | None = None) -> Pending:
    """A mark for a decision with that id, or for a repair."""
    return Pending(id or uuid.uuid4().hex, version, repair=id is None, time=time.time())


def _to_json(record: Record) -> str:
    """At most as long as a parameter may be; what is too long is whole in the report."""
    for shorter in (
        record,
        replace(record, verdicts=[{**v, "rule": v["rule"]["kind"]} for v in record.verdicts]),
        replace(
            record,
            reason=record.reason[:1000],
            verdicts=[{"rule": v["rule"]["kind"], "passed": v["passed"]} for v in record.verdicts],
        ),
        replace(record, reason=record.reason[:1000], verdicts=[], details={}),
    ):
        text = json.dumps(asdict(shorter), ensure_ascii=False, sort_keys=True)
        if len(text) <= PARAMETER_LIMIT:
            return text
    raise RequestError(f"the decision's record is too long: {one_line(ValueError(text))}")
