"""`heliograph VERB` and `python -m heliograph.jobs.VERB` are the same thing."""

import re
from collections.abc import Callable

import pytest

from heliograph.jobs.submit import VERBS
from tests.jobs.conftest import ROOT, Forked

Command = Callable[..., Forked]


@pytest.mark.parametrize("verb", [*VERBS, "submit"])
def test_both_spellings_have_one_help(verb: str, heliograph: Command) -> None:
    short, long = heliograph(verb, "--help"), heliograph("--help", module=f"heliograph.jobs.{verb}")
    assert short.exit_code == long.exit_code == 0
    assert short.stdout == long.stdout
    assert "--json" in short.stdout
    assert "--debug" in short.stdout


@pytest.mark.parametrize("words", [("recipe.yaml", "seeed=1"), (), ("recipe.yaml", "--jsn")])
def test_both_spellings_fail_alike(words: tuple[str, ...], heliograph: Command) -> None:
    short, long = heliograph("train", *words), heliograph(*words, module="heliograph.jobs.train")
    assert (short.exit_code, short.stdout, short.stderr) == (2, "", long.stderr)
    assert long.exit_code == 2


def test_help_names_every_verb(heliograph: Command) -> None:
    listed = re.findall(r"^  (\w+)  +\w", heliograph("--help").stdout, flags=re.MULTILINE)
    assert listed == [*VERBS, "submit", "status", "logs", "stop"]
    assert {path.stem for path in (ROOT / "jobs").glob("*.py")} - {"__init__"} == {
        *listed,
        "cli",
        "command",
    }
