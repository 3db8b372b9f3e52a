"""A decision about a champion, made: judged, reported, written into the ledger, completed."""

import getpass
import json
import os
import platform
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from heliograph.pipeline.promotion.ledger import Kind, Ledger, Record, new_pending
from heliograph.pipeline.promotion.report import write_report
from heliograph.pipeline.promotion.settling import Standing, settle
from heliograph.pipeline.scoring.evaluate import Pairs
from heliograph.pipeline.tracking.server import PatientClient, say


@dataclass(frozen=True)
class Decision:
    """What the gate, force or a rollback came to.

    Attributes:
        promoted: the alias `champion` moved.
        champion: the version that has it now.
        previous: the version that had it before.
        number: in the ledger; None: nothing was decided, or it was only tried.
        verdicts: what each rule said.
    """

    promoted: bool
    reason: str
    champion: int | None
    previous: int | None
    number: int | None = None
    verdicts: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Draft:
    """A decision before it has a number, and the texts its report is made of."""

    record: Record
    run_id: str
    pairs: Pairs = ()
    challenger: list[str] | None = None
    champion: list[str] | None = None


def decide(
    client: PatientClient,
    ledger: Ledger,
    draft: Callable[[Standing, Ledger | None], Draft | Decision],
    *,
    by_hand: bool,
) -> Decision:
    """Write the decision that `draft` comes to, anew for as long as another one comes before it."""
    id, overtaken = uuid.uuid4().hex, 0
    while True:
        here = settle(client, ledger, by_hand=by_hand)
        drafted = draft(here, ledger)
        if isinstance(drafted, Decision):
            return drafted
        record = replace(drafted.record, id=id)
        if overtaken:
            record = replace(record, details={**record.details, "overtaken": overtaken})
        _keep_report(client, ledger.name, record, drafted)
        pending = new_pending(record.champion, id=id)
        ledger.begin(pending)
        if ledger.decide(record):
            settle(client, ledger, own=pending)
            ledger.end(pending)
            return Decision(
                record.promoted, record.reason, record.champion, record.previous, record.number,
                record.verdicts,
            )  # fmt: skip
        ledger.end(pending)
        overtaken += 1
        say(f"another decision about {ledger.name!r} was made meanwhile; judging again")


def _keep_report(client: PatientClient, name: str, record: Record, draft: Draft) -> None:
    """The whole record and its page, with the version's run, before it counts: it does when the
    ledger has its id."""
    page = write_report(record, name, draft.pairs, draft.challenger, draft.champion)
    text = json.dumps(asdict(record), indent=2, ensure_ascii=False)
    for file, content in (("decision.json", text), ("report.html", page)):
        client.log_text(draft.run_id, content, f"decisions/{record.id}/{file}")


def make_record(
    kind: Kind, version: int, here: Standing, reason: str, promoted: bool = True
) -> Record:
    return Record(
        number=here.number + 1,
        id="",
        time=time.time(),
        kind=kind,
        promoted=promoted,
        version=version,
        champion=version if promoted else here.champion,
        previous=here.champion,
        reason=reason,
        who=_who(),
    )


def _who() -> dict[str, str]:
    """Who decides: the user, the host and, on a cluster, the job."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = str(os.getuid())
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")).get("metadata", {})
    who = {"user": user, "host": platform.node(), "job": job.get("job_submission_id", "")}
    return {key: value for key, value in who.items() if value}
