"""Who is champion: promotion through the gate, promotion by force, the way back, and the record.

A decision is made by writing it into the ledger, under the next number. If another promoter has
taken that number, the request is judged anew, against the new champion. The alias `champion` is
moved after the decision, and `settle` does that: at the end of each command for its own decision,
and at the beginning for whatever an earlier command left half done.
"""

from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from heliograph.pipeline.checkpoints.model_folder import RECIPE, read_settings
from heliograph.pipeline.promotion.decision import Decision, Draft, decide, make_record
from heliograph.pipeline.promotion.ledger import Ledger, Record, find_ledger, open_ledger
from heliograph.pipeline.promotion.pinned_sets import read_pinned
from heliograph.pipeline.promotion.settling import Standing, settle, standing_without_ledger
from heliograph.pipeline.registry.contender import VersionContender
from heliograph.pipeline.registry.provenance import RECIPE_DIGEST
from heliograph.pipeline.registry.registry import EVALUATION_DIGEST
from heliograph.pipeline.registry.versions import (
    fetch_version,
    find_candidate,
    find_version,
    list_versions,
    open_registry,
)
from heliograph.pipeline.request.decoding import Evaluate
from heliograph.pipeline.request.errors import RequestError, did_you_mean
from heliograph.pipeline.request.model_uri import RegisteredModel
from heliograph.pipeline.request.recipe_file import read_direction, read_gate
from heliograph.pipeline.request.rules import Gate, NotWorse
from heliograph.pipeline.runs.track import code_version
from heliograph.pipeline.scoring.evaluate import Pairs, evaluation_digest, read_evaluation_set
from heliograph.pipeline.scoring.gate import Case, Verdict, judge
from heliograph.pipeline.tracking.server import PatientClient
from heliograph.pipeline.translation.workplace import Workplace

WHY_LIMIT = 500
"""Characters of a user's reason."""


def promote(
    name: str,
    version: int | None = None,
    rules: Gate | None = None,
    *,
    dry_run: bool = False,
    force: str | None = None,
) -> Decision:
    """Make a version champion if it passes the gate, and record the decision either way.

    Args:
        version: None: the challenger, or else the newest version, unless it was rolled back.
        rules: None: those of the version's own recipe.
        dry_run: judge and say what would be; nothing moves and nothing is recorded.
        force: why it is to be champion whatever the rules say.

    Raises:
        RequestError: there is no such model or version, it cannot be judged, its files are not
            those that were registered, the alias was moved by hand, or the tracking server does
            not answer.
    """
    _check_why(force)
    client = open_registry()
    candidate = find_candidate(client, name, version)
    promotion = _Promotion(client, candidate, rules, force, asked_for=version is not None)
    if not dry_run:
        ledger = open_ledger(client, name)
        return decide(client, ledger, promotion.draft, by_hand=force is not None)
    found = find_ledger(client, name)
    here = settle(client, found, by_hand=True) if found else standing_without_ledger(client, name)
    draft = promotion.draft(here, found)
    if isinstance(draft, Decision):
        return draft
    record = draft.record
    return Decision(
        promoted=record.promoted,
        reason=f"dry run, nothing moved: {record.reason}",
        champion=here.champion,
        previous=here.champion,
        verdicts=record.verdicts,
    )


def rollback(name: str, version: int | None = None, why: str | None = None) -> Decision:
    """Give the alias `champion` back to the version that had it before; repeated, further back.

    Args:
        version: to this one, whether it was champion before or not.

    Raises:
        RequestError: there is no such model or version, no champion before the present one, its
            files are not those that were registered, or the tracking server does not answer.
    """
    _check_why(why)
    client = open_registry()
    existing = {int(each.version) for each in list_versions(client, name)}
    if version is not None:
        find_version(client, RegisteredModel(name, version=version))

    def draft(here: Standing, _: Ledger | None) -> Draft | Decision:
        if version is not None and version == here.champion:
            here = here.as_decided()
        present, target = here.champion, version
        if target is None:
            before = [n for n in here.champions if n in existing and n != present]
            if not before:
                why_not = f"version {present} is the first" if present else "it never had one"
                raise RequestError(f"{name!r} has no champion to go back to: {why_not}")
            target = before[-1]
        if target == present:
            return Decision(False, f"version {target} is the champion already", present, present)
        goal = find_candidate(client, name, target)
        fetch_version(goal, exports=True)  # its files are checked
        again = " again" if target in here.champions else ""
        after = f", after version {present}" if present else ""
        reason = f"version {target} is champion{again}{after}"
        record = make_record("rollback", target, here, reason)
        return Draft(replace(record, why=why), goal.run_id)

    return decide(client, open_ledger(client, name), draft, by_hand=version is not None)


def history(name: str) -> list[Record]:
    """Every decision about a registered model, oldest first; what was left half done is completed.

    Raises:
        RequestError: there is no such model, or the tracking server does not answer.
    """
    client = open_registry()
    list_versions(client, name)
    ledger = find_ledger(client, name)
    if ledger is None:
        return []
    settle(client, ledger, by_hand=True)
    return ledger.read().records


class _Promotion:
    """A request for one version, which is judged again whenever the champion is another."""

    def __init__(
        self,
        client: PatientClient,
        version: Any,
        rules: Gate | None,
        force: str | None,
        *,
        asked_for: bool,
    ) -> None:
        self._client = client
        self._asked_for = asked_for
        self._version = version
        self._force = force
        self._rules = rules
        self._workplace = Workplace()
        self._sides: dict[int, VersionContender] = {}

    def draft(self, here: Standing, ledger: Ledger | None) -> Draft | Decision:
        number = int(self._version.version)
        if number == here.champion:
            here = here.as_decided()
        if number == here.champion:
            reason = f"version {number} is the champion already"
            return Decision(False, reason, number, number)
        if number in here.rolled_back and not self._asked_for:
            raise RequestError(
                f"version {number} of {self._version.name!r} was rolled back, and nothing newer "
                f"is there: `heliograph promote {self._version.name} --version {number}` judges it "
                "again"
            )
        if number == here.opponent and self._force is None:
            raise RequestError(
                f"version {number} of {self._version.name!r} was the last champion that is left, "
                f"and nobody is now: `heliograph rollback {self._version.name} --version {number}` "
                "makes it champion again"
            )
        if EVALUATION_DIGEST not in self._version.tags:
            raise RequestError(
                f"version {number} of {self._version.name!r} has no evaluation set to be judged "
                "on; versions that `heliograph train` registers have one"
            )
        folder = self._folder
        settings = read_settings(folder)
        challenger = self._side(number, settings)
        champion = None if here.opponent is None else self._side(here.opponent, settings)
        rules = read_gate(folder / RECIPE) if self._rules is None else self._rules
        pairs = read_evaluation_set(folder)
        sets = self._sets(rules, here, ledger, read_direction(folder / RECIPE))
        case = Case(challenger, champion, pairs, sets, settings.tokenize)
        verdicts = judge(rules, case)
        record = make_record(
            "gate" if self._force is None else "force",
            number,
            here,
            _reason(number, here, verdicts, self._force),
            promoted=self._force is not None or all(verdict.passed for verdict in verdicts),
        )
        record = replace(
            record,
            why=self._force,
            verdicts=[asdict(verdict) for verdict in verdicts],
            evaluation={name: evaluation_digest(each) for name, each in sets.items()}
            | {"evaluation": evaluation_digest(pairs)},
            details={
                "recipe": self._version.tags.get(RECIPE_DIGEST),
                "decoding": settings.model_dump(),
                **code_version(),
            },
        )
        return Draft(
            record,
            self._version.run_id,
            pairs,
            challenger.translations(pairs),
            None if champion is None else champion.translations(pairs),
        )

    @cached_property
    def _folder(self) -> Path:
        return fetch_version(self._version, exports=False)

    def _side(self, number: int, settings: Evaluate) -> VersionContender:
        if number not in self._sides:
            wanted = RegisteredModel(self._version.name, version=number)
            version = find_version(self._client, wanted)
            folder = self._folder if number == int(self._version.version) else None
            self._sides[number] = VersionContender(
                self._client, version, settings, self._workplace, folder
            )
        return self._sides[number]

    def _sets(
        self, rules: Gate, here: Standing, ledger: Ledger | None, direction: str
    ) -> dict[str, Pairs]:
        """The pinned sets that rules name."""
        sets: dict[str, Pairs] = {}
        for name in {rule.set for rule in rules if isinstance(rule, NotWorse)}:
            if ledger is None or name not in here.pinned:
                raise RequestError(
                    f"a rule not_worse needs an evaluation set {name!r}, which is not pinned; "
                    + (did_you_mean(name, here.pinned) if here.pinned else "there is none yet")
                    + f" (`heliograph pin {self._version.name} {name} --data …` pins one)"
                )
            description = here.pinned[name]
            if description["direction"] == "→".join(reversed(direction.split("→"))):
                raise RequestError(
                    f"evaluation set {name!r} is {description['direction']}, and version "
                    f"{self._version.version} translates {direction}: pin a set of that direction "
                    "and name it in the rule"
                )
            sets[name] = read_pinned(ledger, name, description)
        return sets


def _reason(number: int, here: Standing, verdicts: list[Verdict], force: str | None) -> str:
    failed = [verdict for verdict in verdicts if not verdict.passed]
    said = "; ".join(f"{verdict.rule['kind']}: {verdict.reason}" for verdict in failed or verdicts)
    if force is not None:
        outcome = "becomes champion by force"
    elif failed:
        outcome = "does not become champion"
    elif here.champions:
        outcome = f"becomes champion after version {here.champion or here.champions[-1]}"
    else:
        outcome = "becomes the first champion"
    if here.champion is None and here.champions:
        outcome += f"; version {here.champions[-1]} is champion no more"
        outcome += f", it was held against version {here.opponent}" if here.opponent else ""
    return f"version {number} {outcome}" + (f": {said}" if said else "")


def _check_why(why: str | None) -> None:
    if why is not None and not 0 < len(why.strip()) <= WHY_LIMIT:
        raise RequestError(f"why {why!r}: a reason has 1 to {WHY_LIMIT} characters")
