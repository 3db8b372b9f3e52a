"""`heliograph promote NAME`: asks the gate whether a version becomes the champion."""

from dataclasses import asdict
from typing import Annotated

import typer

from jobs.command import DONE, GATE_SAID_NO, Answer, command, run_alone
from pipeline.model_uri import check_model, check_name
from pipeline.recipe import Registry

Name = Annotated[str, typer.Argument(metavar="NAME", help="The registered model.")]
Version = Annotated[
    int | None, typer.Option(help="The version to promote.", show_default="the challenger", min=1)
]
Margin = Annotated[
    float, typer.Option(help="BLEU points by which it must beat the champion.", min=0.0)
]
DEFAULT_MARGIN = Registry().margin


@command
def promote(name: Name, version: Version = None, margin: Margin = DEFAULT_MARGIN) -> Answer:
    """Make a version the champion, if it is better than the present one by the margin.

    Exit code 3 when it is not.
    """
    # At once: what follows loads torch and MLflow.
    if version is None:
        check_name(name)
    else:
        check_model(f"models:/{name}/{version}")
    from pipeline import registry

    decision = registry.promote(name, version, margin)
    return Answer(
        decision.reason, asdict(decision), exit_code=DONE if decision.promoted else GATE_SAID_NO
    )


if __name__ == "__main__":
    run_alone(promote)
