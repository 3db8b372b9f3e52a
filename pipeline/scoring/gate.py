"""The gate: rules in, verdicts with their figures out.

Knows nothing of a registry: what is judged is a `Contender`, which translates, and says how fast
and how large it is.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import singledispatch
from typing import Any, Protocol

from heliograph.pipeline.request.rules import (
    AnyRule,
    Behaviour,
    Better,
    Gate,
    NotWorse,
    Size,
    Speed,
)
from heliograph.pipeline.scoring import behaviour
from heliograph.pipeline.scoring.evaluate import Pairs, score
from heliograph.pipeline.scoring.significance import compare

MEGABYTE = 1_000_000


class Contender(Protocol):
    """A model to be judged. Both of a comparison decode with the same settings."""

    def translations(self, pairs: Pairs) -> list[str]:
        """Of the pairs' sources, in their order; pairs that were translated once are remembered."""

    def speed(self, sources: Sequence[str]) -> float:
        """Sentences a second, measured now on this machine."""

    def size(self) -> int:
        """Bytes of its weights."""


@dataclass(frozen=True)
class Case:
    """What the rules look at.

    Attributes:
        champion: None: there is none yet.
        pairs: the evaluation set that is pinned to the challenger.
        sets: the other sets, by name.
        tokenize: what BLEU's words are; see `evaluate.score`.
    """

    challenger: Contender
    champion: Contender | None
    pairs: Pairs
    sets: Mapping[str, Pairs] = field(default_factory=dict)
    tokenize: str | None = None


@dataclass(frozen=True)
class Verdict:
    """What one rule said.

    Attributes:
        rule: its kind and its settings.
        reason: for people, with the figures that matter.
        figures: all of them, for scripts and for the record.
    """

    rule: dict[str, Any]
    passed: bool
    reason: str
    figures: dict[str, Any]


Finding = tuple[bool, str, dict[str, Any]]

NO_CHAMPION: Finding = (True, "there is no champion to compare with", {})


def judge(rules: Gate, case: Case) -> list[Verdict]:
    """What each rule says, in their order. The sets that they name are in the case."""
    return [
        Verdict(rule.model_dump(mode="json", exclude_none=True), *_apply(rule, case))
        for rule in rules
    ]


@singledispatch
def _apply(rule: AnyRule, case: Case) -> Finding:
    raise NotImplementedError(rule)


@_apply.register
def _(rule: Better, case: Case) -> Finding:
    if case.champion is None:
        return NO_CHAMPION
    found = compare(
        case.challenger.translations(case.pairs),
        case.champion.translations(case.pairs),
        [target for _, target in case.pairs],
        rule.metric,
        rule.samples,
        case.tokenize,
    )
    passed = found.gain > 0 and found.gain >= rule.margin and (rule.p == 1 or found.p < rule.p)
    asked = f"{rule.margin:+g}" if rule.margin else "any gain"
    gain, p = _beside(found.gain, rule.margin, form="+.2f"), _beside(found.p, rule.p, form=".4f")
    reason = (
        f"{rule.metric} {found.challenger:.2f}, {gain} beside the champion's "
        f"{found.champion:.2f} with p = {p}; it takes {asked}"
    ) + (f" and p < {rule.p:g}" if rule.p < 1 else "")
    return passed, reason, {**vars(found), "gain": found.gain, "sentences": len(case.pairs)}


@_apply.register
def _(rule: NotWorse, case: Case) -> Finding:
    if case.champion is None:
        return NO_CHAMPION
    pairs = case.sets[rule.set]
    references = [target for _, target in pairs]
    scores = (
        score(contender.translations(pairs), references, case.tokenize)
        for contender in (case.challenger, case.champion)
    )
    new, old = (float(getattr(each, rule.metric)) for each in scores)
    gain = _beside(new - old, -rule.tolerance, form="+.2f")
    reason = (
        f"{rule.metric} {new:.2f} on {rule.set}, {gain} "
        f"beside the champion's {old:.2f}; it may lose {rule.tolerance:g}"
    )
    figures = {"challenger": new, "champion": old, "gain": new - old, "sentences": len(pairs)}
    return new >= old - rule.tolerance, reason, figures


@_apply.register
def _(rule: Speed, case: Case) -> Finding:
    sources = [source for source, _ in case.pairs[: rule.sentences]]
    new = case.challenger.speed(sources)
    figures: dict[str, Any] = {"challenger": new, "sentences": len(sources)}
    passed, said = True, [f"{new:.1f} sentences/s"]
    if rule.per_second is not None:
        passed = new >= rule.per_second
        said = [
            f"{_beside(new, rule.per_second, form='.1f')} sentences/s",
            f"it takes {rule.per_second:g}",
        ]
    if rule.of_champion is not None and case.champion is not None:
        old = figures["champion"] = case.champion.speed(sources)
        passed = passed and new >= rule.of_champion * old
        said.append(f"the champion {old:.1f}, it takes {rule.of_champion:g} times that")
    return passed, "; ".join(said), figures


@_apply.register
def _(rule: Size, case: Case) -> Finding:
    new = case.challenger.size() / MEGABYTE
    figures: dict[str, Any] = {"challenger": new}
    passed, said = True, [f"{new:.1f} MB of weights"]
    if rule.megabytes is not None:
        passed = new <= rule.megabytes
        said = [
            f"{_beside(new, rule.megabytes, form='.1f')} MB of weights",
            f"at most {rule.megabytes:g}",
        ]
    if rule.of_champion is not None and case.champion is not None:
        old = figures["champion"] = case.champion.size() / MEGABYTE
        passed = passed and new <= rule.of_champion * old
        said.append(f"the champion has {old:.1f}, at most {rule.of_champion:g} times that")
    return passed, "; ".join(said), figures


@_apply.register
def _(rule: Behaviour, case: Case) -> Finding:
    found = [*_texts(rule, case), *_robustness(rule, case)]
    wrong = [reason for _, passed, reason, _ in found if not passed]
    reason = "; ".join(wrong) or "; ".join(reason for _, _, reason, _ in found)
    return not wrong, reason or "nothing was asked for", {key: value for key, *_, value in found}


Check = tuple[str, bool, str, float]
"""The rule's key, whether it passed, why, and the figure."""


def _texts(rule: Behaviour, case: Case) -> Iterator[Check]:
    """What the translations of the evaluation set themselves show."""
    sources, references = (list(side) for side in zip(*case.pairs, strict=True))
    hypotheses = case.challenger.translations(case.pairs)
    if rule.numbers is not None:
        kept, wanted = behaviour.numbers_kept(sources, references, hypotheses)
        share = kept / wanted if wanted else 1.0
        yield "numbers", share >= rule.numbers, f"{kept} of {wanted} numbers kept", share
    for key, most, count, what in (
        ("empty", rule.empty, behaviour.count_empty(sources, hypotheses), "empty"),
        ("loops", rule.loops, behaviour.count_loops(references, hypotheses), "looping"),
    ):
        if most is not None:
            share = count / len(hypotheses)
            yield key, share <= most, f"{count} of {len(hypotheses)} {what}", share
    if rule.length_ratio is not None:
        low, high = rule.length_ratio
        ratio = behaviour.length_ratio(references, hypotheses)
        yield (
            "length_ratio",
            low <= ratio <= high,
            f"{_beside(ratio, low, high, form='.2f')} times the references' length",
            ratio,
        )


def _robustness(rule: Behaviour, case: Case) -> Iterator[Check]:
    """How much of the score is left on untidy sources."""
    asked = {key: least for key in behaviour.VARIANTS if (least := getattr(rule, key)) is not None}
    if not asked:
        return
    pairs = case.pairs[: rule.sentences]
    references = [target for _, target in pairs]
    tidy = score(case.challenger.translations(case.pairs)[: len(pairs)], references).chrf
    for key, least in asked.items():
        changed = [(behaviour.VARIANTS[key](source), target) for source, target in pairs]
        untidy = score(case.challenger.translations(changed), references).chrf
        share = untidy / tidy if tidy else 0.0  # what translates nothing proves nothing
        left = _beside(share, least, form=".0%")
        yield key, share >= least, f"{left} of chrF left with {key} changed", share


def _beside(value: float, *bounds: float, form: str) -> str:
    """Formatted (".2f", "+.2f" or ".0%"), with as many digits more as show on which side of the
    bounds it is: never "+0.20; it takes +0.2" of what is a little less."""
    start, digits, kind = form[: form.index(".") + 1], int(form[-2]), form[-1]
    for more in range(digits, digits + 7):
        text = f"{value:{start}{more}{kind}}"
        shown = float(text.rstrip("%")) / (100 if kind == "%" else 1)
        if all(_side(shown, bound) == _side(value, bound) for bound in bounds):
            return text
    return f"{value:{form}}"


def _side(value: float, bound: float) -> int:
    return (value > bound) - (value < bound)
