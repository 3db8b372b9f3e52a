"""Lineage: from a version to what it was made from, and from a data set to what was made from it.

Only read: nothing is settled or repaired here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Literal

from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from heliograph.pipeline.promotion.ledger import Record, find_ledger
from heliograph.pipeline.registry.provenance import DATA, DataSet, Provenance, code_of, find_run
from heliograph.pipeline.registry.versions import find_version, open_registry, search_versions
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.request.model_uri import (
    RegisteredModel,
    check_digest,
    check_model,
    parse_traceable,
)
from heliograph.pipeline.tracking.server import Client

EVENTS = "events/"
"""And a kind: metrics whose points are what befell a run, by step; see `event_log`."""


@dataclass(frozen=True)
class Incident:
    """Training was started again, had failed, was stopped, …; `kind` as in `events`."""

    kind: str
    step: int
    time: float


@dataclass(frozen=True)
class RunFacts:
    """What is left of a version's run: all of it, what is marked as deleted, or nothing."""

    id: str
    state: Literal["there", "deleted", "gone"]
    name: str | None = None
    status: str | None = None
    started: float | None = None
    code: dict[str, str] = field(default_factory=dict)
    incidents: list[Incident] = field(default_factory=list)


@dataclass(frozen=True)
class Use:
    """A version that a data set was used for, and what for."""

    name: str
    version: int
    aliases: list[str]
    run_id: str | None
    data: DataSet


@dataclass(frozen=True)
class Lineage:
    """Of one version.

    Attributes:
        promotion: the last decision that made it champion; None: none did.
        remark: why `promotion` cannot be told.
        relatives: other versions that were trained on the same data.
    """

    name: str
    version: int
    aliases: list[str]
    registered: float
    provenance: Provenance
    run: RunFacts | None
    promotion: Record | None
    remark: str | None
    relatives: list[Use]


@dataclass(frozen=True)
class Descent:
    """All versions that a data set was used for."""

    digest: str
    uses: list[Use]


def trace(model: str) -> Lineage:
    """Where a version comes from, as it says itself, and what else was made from the same data.

    Args:
        model: models:/NAME@ALIAS, models:/NAME/VERSION, or runs:/RUN_ID/PATH of a run that one
            version was registered from.

    Raises:
        RequestError: it is misspelt or not there, or the tracking server does not answer.
    """
    wanted = parse_traceable(model)
    check_model(model)
    client = open_registry()
    if isinstance(wanted, RegisteredModel):
        version = find_version(client, wanted)
    else:
        version = _registered_from(client, wanted.run_id)
    name, number = version.name, int(version.version)
    provenance = Provenance.from_tags(version.run_id, version.tags)
    promotion, remark = _promotion(client, name, number)
    return Lineage(
        name=name,
        version=number,
        aliases=_aliases(client, name, number),
        registered=version.creation_timestamp / 1000,
        provenance=provenance,
        run=_run_facts(client, version.run_id) if version.run_id else None,
        promotion=promotion,
        remark=remark,
        relatives=_relatives(client, name, number, provenance),
    )


def descend(digest: str) -> Descent:
    """All versions of all registered models that a data set was used for.

    Args:
        digest: of the data set, or its beginning: at least 8 characters.

    Raises:
        RequestError: no version was made from such data, or several data sets begin so.
    """
    digest = check_digest(digest)
    client = open_registry()
    uses = _uses(client, digest)
    known = {use.data.digest: use for use in uses}
    if len(known) > 1:
        several = ", ".join(f"{key} ({use.data.location})" for key, use in sorted(known.items()))
        raise RequestError(f"digest {digest!r} is the beginning of several: {several}; give more")
    if not known:
        raise _unknown(digest, [use.data.digest for use in _uses(client, "")])
    return Descent(next(iter(known)), uses)


def _registered_from(client: Client, run_id: str) -> ModelVersion:
    found = search_versions(client, f"run_id = '{run_id}'")
    if not found:
        raise RequestError(f"no version of a registered model is of run {run_id!r}")
    if len(found) > 1:
        names = ", ".join(f"models:/{each.name}/{each.version}" for each in found)
        raise RequestError(f"run {run_id!r} has several versions; name one of {names}")
    return found[0]


def _run_facts(client: Client, run_id: str) -> RunFacts:
    run = find_run(client, run_id)
    if run is None:
        return RunFacts(run_id, "gone")
    return RunFacts(
        id=run_id,
        state="there" if run.info.lifecycle_stage == "active" else "deleted",
        name=run.info.run_name,
        status=run.info.status,
        started=run.info.start_time / 1000,
        code=code_of(run.data.tags),
        incidents=_incidents(client, run),
    )


def _incidents(client: Client, run: Run) -> list[Incident]:
    incidents = [
        Incident(key.removeprefix(EVENTS), int(point.step), point.timestamp / 1000)
        for key in run.data.metrics
        if key.startswith(EVENTS)
        for point in client.get_metric_history(run.info.run_id, key)
    ]
    return sorted(incidents, key=lambda incident: (incident.time, incident.kind))


def _promotion(client: Client, name: str, number: int) -> tuple[Record | None, str | None]:
    try:
        ledger = find_ledger(client, name)
    except RequestError as error:  # the ledger was deleted, which leaves all else as it is
        return None, str(error)
    records = ledger.read().records if ledger else []
    made = [record for record in records if record.promoted and record.version == number]
    return (made[-1] if made else None), None


def _relatives(client: Client, name: str, number: int, provenance: Provenance) -> list[Use]:
    found: dict[tuple[str, int], Use] = {}
    for data in provenance.data:
        if data.trains:
            for use in _uses(client, data.digest):
                if use.data.trains and (use.name, use.version) != (name, number):
                    found.setdefault((use.name, use.version), use)
    return [found[key] for key in sorted(found)]


def _uses(client: Client, digest: str) -> list[Use]:
    """Of data sets whose digest begins so, each version's once for each thing it used one for."""
    # The tag holds other text, too, so that the search may find more than is asked for.
    versions = search_versions(client, f"tags.`{DATA}` LIKE '%{digest}%'")
    aliases: dict[str, dict[str, Any]] = {}
    uses = []
    for version in versions:
        data = Provenance.from_tags(version.run_id, version.tags).data
        for each in data:
            if not each.digest.startswith(digest):
                continue
            if version.name not in aliases:
                aliases[version.name] = client.get_registered_model(version.name).aliases
            number = int(version.version)
            names = _of_version(aliases[version.name], number)
            uses.append(Use(version.name, number, names, version.run_id or None, each))
    return uses


def _aliases(client: Client, name: str, number: int) -> list[str]:
    return _of_version(client.get_registered_model(name).aliases, number)


def _of_version(aliases: dict[str, Any], number: int) -> list[str]:
    return sorted(alias for alias, version in aliases.items() if int(version) == number)


def _unknown(digest: str, known: Sequence[str]) -> RequestError:
    message = f"no version was made from a data set with digest {digest!r}"
    if not known:
        return RequestError(f"{message}: no version in this registry says what it was made from")
    near = get_close_matches(digest, {each[: len(digest)] for each in known}, n=1)
    if near:
        return RequestError(f"{message}; did you mean {near[0]!r}?")
    return RequestError(f"{message}; `heliograph lineage MODEL` shows those of a version")
