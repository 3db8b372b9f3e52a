"""`heliograph promote NAME`: asks the gate whether a version becomes the champion."""

from dataclasses import asdict
from typing import Annotated, Any

import typer
import yaml

import heliograph
from heliograph.jobs.command import DONE, GATE_SAID_NO, Answer, command, run_alone
from heliograph.pipeline.request.errors import RequestError

Name = Annotated[str, typer.Argument(metavar="NAME", help="The registered model.")]
Version = Annotated[
    int | None, typer.Option(help="The version to promote.", show_default="the challenger", min=1)
]
Rule = Annotated[
    list[str] | None,
    typer.Option(
        "--rule",
        metavar="YAML",
        help="A rule as in the recipe, such as '{kind: better, margin: 0.5}'; may be repeated.",
        show_default="registry.gate of the version's recipe",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Judge only: nothing moves.")]
Force = Annotated[bool, typer.Option("--force", help="Whatever the rules say; needs --why.")]
Why = Annotated[str | None, typer.Option(help="The reason, which is recorded.")]


@command
def promote(
    name: Name,
    version: Version = None,
    rule: Rule = None,
    dry_run: DryRun = False,
    force: Force = False,
    why: Why = None,
) -> Answer:
    """Make a version the champion, if it passes the gate's rules.

    Exit code 3 when the gate says no. Each decision is recorded; see `heliograph history`.
    """
    if force and why is None:
        raise RequestError("--force needs --why: the reason is recorded with the decision")
    if why is not None and not force:
        raise RequestError(f"--why {why!r} is for --force: the gate has its own reasons")
    if force and dry_run:
        raise RequestError("--force and --dry-run exclude each other: give one of them")
    rules = [_parse(text) for text in rule] if rule else None
    decision = heliograph.promote(name, version, rules, dry_run=dry_run, force=why)
    lines = [decision.reason]
    if not decision.promoted:  # then the reason names the rules that failed
        passed = [verdict for verdict in decision.verdicts if verdict["passed"]]
        lines += [f"  passed: {each['rule']['kind']}: {each['reason']}" for each in passed]
    refused = bool(decision.verdicts) and not decision.promoted  # else it is champion already
    return Answer("\n".join(lines), asdict(decision), GATE_SAID_NO if refused else DONE)


def _parse(text: str) -> dict[str, Any]:
    try:
        rule = yaml.safe_load(text)
    except yaml.YAMLError:
        rule = None
    if not isinstance(rule, dict):
        raise RequestError(f"--rule {text!r} is no rule: it must read {{kind: size, megabytes: 9}}")
    return rule


if __name__ == "__main__":
    run_alone(promote)
