"""`heliograph train RECIPE [key.path=value …]`: one job, from tokenizer to challenger."""

from typing import Annotated, Any

import typer

from jobs.command import Answer, Overrides, command, run_alone
from pipeline.placement import check_here
from pipeline.recipe import Recipe
from pipeline.recipe_file import load_recipe

RecipePath = Annotated[str, typer.Argument(metavar="RECIPE", help="A YAML file; see recipes/.")]


@command
def train(recipe: RecipePath, overrides: Overrides = None) -> Answer:
    """Run one training job, from tokenizer to registered challenger.

    The same recipe is the same job: started again, it goes on where it was, in the same MLflow run.
    """
    result = run(load_recipe(recipe, overrides))
    return Answer(describe_result(result), result)


def run(recipe: Recipe) -> dict[str, Any]:
    """Run the job; what is impossible is said before torch and Ray are loaded."""
    check_here(recipe.cluster)
    from pipeline.source import check_data

    check_data(recipe.data)
    from pipeline.job import run_training_job

    return run_training_job(recipe)


def describe_result(result: dict[str, Any]) -> str:
    """What came out, and how to look at it."""
    from pipeline.job import ui_command

    metrics, model = result["metrics"], result["model"]
    return "\n".join(
        [
            f"step {result['steps']}: BLEU {metrics['valid/bleu']:.2f}, "
            f"chrF {metrics['valid/chrf']:.2f} on the validation set",
            f"registered as {model['uri']}",
            f"look at the run: {ui_command(result)}",
        ]
    )


if __name__ == "__main__":
    run_alone(train)
