"""`heliograph pin NAME SET --data …`: gives an evaluation set its name, for the gate's rules."""

from typing import Annotated

import typer

from heliograph.jobs.command import Answer, command, run_alone
from heliograph.jobs.evaluate import (
    Configuration,
    Revision,
    SourceColumn,
    Split,
    TargetColumn,
)
from heliograph.jobs.promote import Name
from heliograph.pipeline.request.data import Data
from heliograph.pipeline.request.model_uri import check_name
from heliograph.pipeline.request.recipe_file import parse_location

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
    configuration: Configuration = None,
    revision: Revision = None,
) -> Answer:
    """Pin an evaluation set for the gate's rules: its pairs are kept with the registered model."""
    asked = Data.only(
        parse_location("--data", data), source, target, split, configuration, revision
    )
    check_name(name)  # at once: what follows loads torch and MLflow
    from heliograph.pipeline.models.use import pin_evaluation_set

    found = pin_evaluation_set(name, set_name, asked)
    return Answer(
        f"{set_name}: {found['sentences']} sentences {found['direction']}, {found['digest']}", found
    )


if __name__ == "__main__":
    run_alone(pin)
