"""`heliograph train RECIPE [key.path=value …]`: one job, from tokenizer to registered challenger."""

from typing import Annotated

import typer

from jobs.command import Answer, AsJson, Debug, Overrides, command, run_alone
from pipeline.recipe import load_recipe

RecipePath = Annotated[str, typer.Argument(metavar="RECIPE", help="A YAML file; see recipes/.")]


@command
def train(
    recipe: RecipePath, overrides: Overrides = None, as_json: AsJson = False, debug: Debug = False
) -> Answer:
    """Run one training job, from tokenizer to registered challenger.

    The same recipe is the same job: started again, it goes on where it was, in the same MLflow run.
    """
    job = load_recipe(recipe, overrides)
    from pipeline.job import run_training_job

    result = run_training_job(job)
    return Answer("", result)


if __name__ == "__main__":
    run_alone(train)
