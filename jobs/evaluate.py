"""`heliograph evaluate MODEL [--data …]`: BLEU and chrF, with their signatures."""

from typing import Annotated, Any, Literal

import typer

import heliograph
from heliograph.jobs.command import Answer, Model, command, run_alone
from heliograph.pipeline.request.recipe_file import parse_location

DataLocation = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="A hub name, a file, or a YAML list or {source: FILE, target: FILE}.",
        show_default="the evaluation set that the model brings",
    ),
]
SourceColumn = Annotated[str, typer.Option("--source", help="The source's column or key.")]
TargetColumn = Annotated[str, typer.Option("--target", help="The target's column or key.")]
Split = Annotated[str, typer.Option("--split", help="The split, of a hub data set or a folder.")]
Configuration = Annotated[
    str | None,
    typer.Option("--configuration", help='A hub data set\'s configuration (its "subset").'),
]
Revision = Annotated[
    str | None,
    typer.Option(
        "--revision",
        help="A hub data set's commit, tag or branch.",
        show_default="the newest",
    ),
]
Engine = Annotated[
    Literal["torch", "ctranslate2", "ctranslate2-int8", "ctranslate2-float16"],
    typer.Option("--engine", help="What runs the model; all but torch need `heliograph export`."),
]


@command
def evaluate(
    model: Model,
    data: DataLocation = None,
    source: SourceColumn = "source",
    target: TargetColumn = "target",
    split: Split = "validation",
    configuration: Configuration = None,
    revision: Revision = None,
    engine: Engine = "torch",
) -> Answer:
    """Score a model by beam search, as it was set at training."""
    location = parse_location("--data", data) if data else None
    scores = heliograph.evaluate(
        model,
        location,
        source,
        target,
        split,
        engine,
        configuration=configuration,
        revision=revision,
    )
    return Answer(describe_scores(scores), scores)


def describe_scores(scores: dict[str, Any]) -> str:
    """Scores with what is needed to compare them with others'."""
    lines = [
        f"BLEU {scores['bleu']:.2f}  chrF {scores['chrf']:.2f}  {scores['sentences']} sentences"
    ]
    lines += [f"  {metric}: {signature}" for metric, signature in scores["signatures"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    run_alone(evaluate)
