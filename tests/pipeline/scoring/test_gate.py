"""The rules, on contenders whose translations are written down."""

from collections.abc import Sequence
from typing import Any

import pytest

from heliograph.pipeline.request.rules import AnyRule, Behaviour, Better, NotWorse, Size, Speed
from heliograph.pipeline.scoring.evaluate import Pairs
from heliograph.pipeline.scoring.gate import Case, Verdict, judge

PAIRS = [(f"Dog {n} barks.", f"Der Hund {n} bellt sehr laut in der Nacht.") for n in range(40)]
RIGHT = dict(PAIRS)
WRONG = {source: "Ein Baum steht hier." for source, _ in PAIRS}


class Scripted:
    """A contender that says what it was told to, and of anything else nothing."""

    def __init__(self, said: dict[str, str], speed: float = 10.0, size: int = 5_000_000) -> None:
        self.said = said
        self._speed = speed
        self._size = size

    def translations(self, pairs: Pairs) -> list[str]:
        return [self.said.get(source, "") for source, _ in pairs]

    def speed(self, sources: Sequence[str]) -> float:  # noqa: ARG002
        return self._speed

    def size(self) -> int:
        return self._size


def mostly_right(wrong: int) -> dict[str, str]:
    return {source: WRONG[source] if n < wrong else RIGHT[source] for n, source in enumerate(RIGHT)}


def verdict(rule: AnyRule, challenger: Scripted, champion: Scripted | None = None) -> Verdict:
    sets = {"other": PAIRS[:10]}
    [found] = judge([rule], Case(challenger, champion, PAIRS, sets))
    return found


def test_better_takes_margin_and_significance() -> None:
    strong, weak = Scripted(mostly_right(2)), Scripted(mostly_right(20))
    found = verdict(Better(), strong, weak)
    assert found.passed
    assert found.figures["p"] < 0.05
    for figure in ("gain", "p", "challenger", "champion"):
        assert f"{found.figures[figure]:.2f}" in found.reason or figure == "p"
    gain = found.figures["gain"]
    assert verdict(Better(margin=gain - 0.01), strong, weak).passed
    assert not verdict(Better(margin=gain + 0.01), strong, weak).passed
    assert not verdict(Better(), weak, strong).passed


def test_a_refusal_does_not_round_itself_away() -> None:
    strong, weak = Scripted(mostly_right(2)), Scripted(mostly_right(20))
    gain = verdict(Better(), strong, weak).figures["gain"]
    found = verdict(Better(margin=gain + 1e-4), strong, weak)
    shown = float(found.reason.split(", +")[1].split()[0])
    assert not found.passed
    assert shown < gain + 1e-4
    size = verdict(Size(megabytes=5), Scripted(RIGHT, size=5_000_100))
    assert not size.passed
    assert size.reason == "5.0001 MB of weights; at most 5"
    speed = verdict(Speed(per_second=10), Scripted(RIGHT, speed=9.999))
    assert speed.reason == "9.999 sentences/s; it takes 10"
    assert verdict(Speed(per_second=10), Scripted(RIGHT)).reason.startswith("10.0 sentences/s")


def test_the_words_of_bleu_are_those_that_the_recipe_names() -> None:
    """Here both differ from the reference in a full stop that stands apart, or does not."""
    apart = Scripted({source: f"{target[:-1]} ." for source, target in PAIRS})
    whole = Scripted(RIGHT)

    def figures(tokenize: str, rule: AnyRule) -> dict[str, Any]:
        case = Case(whole, apart, PAIRS, {"other": PAIRS[:10]}, tokenize)
        return judge([rule], case)[0].figures

    for rule in (Better(margin=0, p=1), NotWorse(set="other", metric="bleu")):
        assert figures("13a", rule)["gain"] == pytest.approx(0)
        assert figures("none", rule)["gain"] > 5
    assert "tok:none" in figures("none", Better())["signature"]


def test_a_gain_by_luck_is_no_gain() -> None:
    lucky, champion = Scripted(mostly_right(10)), Scripted(mostly_right(11))
    found = verdict(Better(margin=0.1), lucky, champion)
    assert not found.passed
    assert found.figures["gain"] > 0.1
    assert found.figures["p"] > 0.05
    assert verdict(Better(margin=0.1, p=1), lucky, champion).passed, "where luck is good enough"


def test_the_same_is_not_better() -> None:
    assert not verdict(Better(margin=0, p=1), Scripted(RIGHT), Scripted(RIGHT)).passed


@pytest.mark.parametrize(
    "rule", [Better(), NotWorse(set="other"), Speed(of_champion=2), Size(of_champion=0.5)]
)
def test_a_first_champion_is_compared_with_nobody(rule: AnyRule) -> None:
    assert verdict(rule, Scripted(WRONG)).passed


@pytest.mark.parametrize("rule", [Speed(per_second=11), Size(megabytes=4.9), Behaviour()])
def test_what_is_absolute_holds_for_a_first_champion_too(rule: AnyRule) -> None:
    assert not verdict(rule, Scripted(WRONG)).passed


def test_not_worse_looks_at_its_own_set() -> None:
    challenger, champion = Scripted(mostly_right(1)), Scripted(RIGHT)
    lost = -verdict(NotWorse(set="other"), challenger, champion).figures["gain"]
    assert lost > 1
    assert not verdict(NotWorse(set="other", tolerance=lost - 0.01), challenger, champion).passed
    assert verdict(NotWorse(set="other", tolerance=lost + 0.01), challenger, champion).passed


def test_speed_and_size() -> None:
    new, old = Scripted(RIGHT, speed=9.0, size=6_000_000), Scripted(RIGHT)
    for rule, passed in [
        (Speed(per_second=9), True),
        (Speed(per_second=9.1), False),
        (Speed(of_champion=0.9), True),
        (Speed(of_champion=0.91), False),
        (Size(megabytes=6), True),
        (Size(megabytes=5.9), False),
        (Size(of_champion=1.2), True),
        (Size(of_champion=1.1), False),
    ]:
        assert verdict(rule, new, old).passed is passed, rule
    assert verdict(Speed(per_second=9), new).figures == {"challenger": 9.0, "sentences": 40}


def test_each_behaviour_fails_for_its_own_reason() -> None:
    nothing = dict.fromkeys(("numbers", "empty", "length_ratio", "loops"))
    first = PAIRS[0][0]
    for key, said in {
        "numbers": {source: text.replace("Hund ", "Hund 9") for source, text in PAIRS},
        "empty": RIGHT | {first: " "},
        "length_ratio": {source: text + " ganz ehrlich gesagt" for source, text in PAIRS},
        "loops": RIGHT | {first: "Der Hund Hund Hund"},
    }.items():
        limit = {key: Behaviour.model_fields[key].default}
        found = verdict(Behaviour(**(nothing | limit)), Scripted(said))
        assert not found.passed, key
        assert list(found.figures) == [key]
        assert verdict(Behaviour(**(nothing | limit)), Scripted(RIGHT)).passed, key


def test_robustness_is_what_is_left_of_the_score() -> None:
    lower = {source.lower(): target for source, target in PAIRS}
    brittle, robust = Scripted(RIGHT), Scripted(RIGHT | lower)
    rule = Behaviour(case=0.9)
    assert (verdict(rule, brittle).passed, verdict(rule, robust).passed) == (False, True)
    assert verdict(rule, robust).figures["case"] == pytest.approx(1)
    half = Behaviour(case=0.4, sentences=10)
    partly = Scripted(RIGHT | dict(list(lower.items())[:5]))
    assert verdict(half, partly).passed
    assert not verdict(Behaviour(typos=0.9), robust).passed
