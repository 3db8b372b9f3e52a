"""`heliograph rollback NAME`: moves `champion` back to the version before."""

from dataclasses import asdict
from typing import Annotated

import typer

from heliograph.jobs.command import Answer, command, run_alone
from heliograph.jobs.promote import Name, Why
from heliograph.pipeline.request.model_uri import check_model, check_name

Version = Annotated[
    int | None, typer.Option(help="To this version.", show_default="the champion before", min=1)
]


@command
def rollback(name: Name, version: Version = None, why: Why = None) -> Answer:
    """Make the version that was champion before, or a named one, the champion again."""
    # At once: what follows loads torch and MLflow.
    if version is None:
        check_name(name)
    else:
        check_model(f"models:/{name}/{version}")
    from heliograph.pipeline.promotion import promote as promotion

    decision = promotion.rollback(name, version, why)
    return Answer(decision.reason, asdict(decision))


if __name__ == "__main__":
    run_alone(rollback)
