"""`heliograph pin NAME SET --data …`: gives an evaluation set its name, for the gate's rules."""

from typing import Annotated

import typer

from jobs.command import Answer, command, run_alone
from jobs.evaluate import SourceColumn, Split, TargetColumn
from jobs.promote import Name
from pipeline.model_uri import check_name
from pipeline.recipe_file import parse_location

SetName = Annotated[str, typer.Argument(metavar="SET", help="The set's name, given once.")]
DataLocation = Annotated[
    str,
    typer.Option(
        "--data", help="A hub name, a file, or a YAML list or {source: FILE, target: FILE}."
    ),
]


@command
def pin(
    name: Name,
    set_name: SetName,
    data: DataLocation,
    source: SourceColumn = "source",
    target: TargetColumn = "target",
    split: Split = "validation",
) -> Answer:
    """Pin an evaluation set for the gate's rules: its pairs are kept with the registered model."""
    location = parse_location("--data", data)
    check_name(name)  # at once: what follows loads torch and MLflow
    from pipeline.use import pin_evaluation_set

    found = pin_evaluation_set(name, set_name, location, source=source, target=target, split=split)
    return Answer(
        f"{set_name}: {found['sentences']} sentences {found['direction']}, {found['digest']}", found
    )


if __name__ == "__main__":
    run_alone(pin)
