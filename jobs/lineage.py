"""`heliograph lineage MODEL`: where a version comes from; `--data DIGEST`: what came from data."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from heliograph.jobs.command import Answer, command, run_alone
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.request.model_uri import check_digest, check_model, parse_traceable

if TYPE_CHECKING:
    from heliograph.pipeline.models.lineage import Lineage, RunFacts, Use
    from heliograph.pipeline.registry.provenance import DataSet

TracedModel = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        help="models:/NAME@champion, models:/NAME/3 or runs:/ID/PATH.",
        show_default=False,
    ),
]
Digest = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DIGEST",
        help="Of a data set, instead of MODEL: every version made from it. 8 characters suffice.",
        show_default=False,
    ),
]

SHOWN = 10
"""Events of the run, the last ones; --json has all."""


@command
def lineage(model: TracedModel = None, data: Digest = None) -> Answer:
    """Show what a version was made from, or with --data what was made from a data set."""
    if model is not None and data is not None:
        raise RequestError(f"MODEL {model!r} and --data {data!r} exclude each other: give one")
    # What is wrong is said at once: what follows loads torch and MLflow.
    if data is not None:
        check_digest(data)
        from heliograph.pipeline.models.lineage import descend

        descent = descend(data)
        lines = [f"data {descent.digest}", *_branches(map(_use, descent.uses))]
        return Answer("\n".join(lines), asdict(descent))
    if model is None:
        raise RequestError("lineage of what? give MODEL, or --data DIGEST")
    parse_traceable(model)
    check_model(model)
    from heliograph.pipeline.models.lineage import trace

    found = trace(model)
    return Answer("\n".join(_tree(found)), asdict(found))


def _tree(found: "Lineage") -> Iterator[str]:
    """A line a fact; below the version, what it was made from."""
    from heliograph.pipeline.registry.provenance import describe_code

    origin = found.provenance
    title = f"models:/{found.name}/{found.version}" + _in_brackets(found.aliases)
    yield f"{title}, registered {_when(found.registered)}"
    if found.promotion is not None:
        made = found.promotion
        decided = f"decision {made.number} ({made.kind}), {_when(made.time)}, by {made.author}"
        is_now = "champion" in found.aliases
        yield f"├─ {'champion' if is_now else 'was champion'} by {decided}: {made.reason}"
    else:
        yield f"├─ {found.remark or 'never made champion'}"
    yield from _run(found.run, origin.job)
    if origin.begun_anew_after:
        yield f"│  ├─ begun anew (--new) after run {origin.begun_anew_after}"
    yield f"│  └─ registered by code {describe_code(origin.code)}"
    yield f"├─ recipe {origin.recipe or 'not recorded'}"
    yield f"├─ tokenizer {origin.tokenizer or 'not recorded'}"
    for data in origin.data:
        yield f"├─ {_data(data)}"
    if not origin.data:
        yield "├─ data not recorded"
    yield f"└─ others trained on the same data{'' if found.relatives else ': none'}"
    yield from (f"   {line}" for line in _branches(map(_use, found.relatives)))


def _run(run: "RunFacts | None", job: str | None) -> Iterator[str]:
    from heliograph.pipeline.registry.provenance import describe_code

    if run is None:
        yield "├─ run not recorded"
        return
    facts = [part for part in (run.name, job and f"job {job}", run.status) if part]
    if run.state == "deleted":
        facts.append(f"deleted: `mlflow runs restore --run-id {run.id}` brings it back")
    elif run.state == "gone":
        facts.append("deleted for good; what follows the version says itself")
    yield f"├─ run {run.id}" + "".join(f", {fact}" for fact in facts)
    if run.started is not None:
        yield f"│  ├─ begun {_when(run.started)}, by code {describe_code(run.code)}"
    if (earlier := len(run.incidents) - SHOWN) > 0:
        yield f"│  ├─ {earlier} earlier events, see events.jsonl in the run"
    for incident in run.incidents[-SHOWN:]:
        yield f"│  ├─ {incident.kind} at step {incident.step}, {_when(incident.time)}"


def _data(data: "DataSet") -> str:
    place = [data.location, data.configuration, data.split]
    place += [data.revision and f"revision {data.revision}"]
    pairs = f"{data.rows:,} pairs of {data.seen:,}"
    return f"{data.context}: {' '.join(part for part in place if part)}, {pairs}, {data.digest}"


def _use(use: "Use") -> str:
    version = f"models:/{use.name}/{use.version}{_in_brackets(use.aliases)}"
    return f"{version}, {use.data.context} ({use.data.rows:,} pairs), run {use.run_id}"


def _branches(lines: Iterator[str]) -> Iterator[str]:
    *most, last = [*lines] or [""]
    yield from (f"├─ {line}" for line in most)
    if last:
        yield f"└─ {last}"


def _in_brackets(aliases: Sequence[str]) -> str:
    return f" ({', '.join(aliases)})" if aliases else ""


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds")


if __name__ == "__main__":
    run_alone(lineage)
