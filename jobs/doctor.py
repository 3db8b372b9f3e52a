"""`heliograph doctor [RECIPE]`: what is wrong with a cluster and a tracking server, in words."""

import os
from dataclasses import asdict
from typing import Annotated

import typer

from heliograph.jobs.command import FAILED, Answer, Overrides, command, run_alone
from heliograph.pipeline.request.model_uri import tracking_uri
from heliograph.pipeline.request.recipe_file import load_recipe


@command
def doctor(
    recipe: Annotated[
        str | None, typer.Argument(help="Its storage and its placement are looked at, too.")
    ] = None,
    overrides: Overrides = None,
    storage: Annotated[
        str | None, typer.Option(help="A folder or URL to look at, instead of the recipe's.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="Of Ray's head, HEAD:6379.", show_default="RAY_ADDRESS, or a Ray of its own here"
        ),
    ] = None,
) -> Answer:
    """Look at every node of the cluster, the storage and the tracking server; exit code 1 if a job
    would fail on them.

    It writes small files to the storage and to a run of the experiment "heliograph doctor", and
    removes them. MLFLOW_TRACKING_URI names the server.
    """
    loaded = load_recipe(recipe, list(overrides or [])) if recipe is not None else None
    if address is not None:
        os.environ["RAY_ADDRESS"] = address
    from heliograph.pipeline.doctor.doctor import examine

    storage = storage or (loaded.storage if loaded is not None else None)
    if storage is not None and "://" not in storage:
        storage = os.path.abspath(storage)
    checks = examine(loaded.cluster if loaded is not None else None, storage, tracking_uri())
    counts = {
        status: sum(check.status == status for check in checks) for status in ("fail", "warn")
    }
    text = "\n".join(check.line() for check in checks)
    text += f"\n{len(checks)} checks: {counts['fail']} failed, {counts['warn']} to be looked at"
    result = {"checks": [asdict(check) for check in checks]}
    return Answer(text, result, exit_code=FAILED if counts["fail"] else 0)


if __name__ == "__main__":
    run_alone(doctor)
