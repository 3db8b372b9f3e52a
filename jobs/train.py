"""`heliograph train RECIPE [key.path=value …]`: one job, from tokenizer to challenger."""

from typing import Annotated, Any

import typer

import heliograph
from heliograph.jobs.command import Answer, Overrides, command, run_alone
from heliograph.pipeline.request.errors import RequestError

RecipePath = Annotated[str, typer.Argument(metavar="RECIPE", help="A YAML file; see recipes/.")]
New = Annotated[bool, typer.Option("--new", help="Begin again, in a new run.")]
RunId = Annotated[
    str | None, typer.Option("--run-id", metavar="ID", help="Go on with this run of the job.")
]


@command
def train(
    recipe: RecipePath, overrides: Overrides = None, new: New = False, run_id: RunId = None
) -> Answer:
    """Run one training job, from tokenizer to registered challenger.

    The same recipe is the same job: started again, it goes on where it was, in the same MLflow run.
    """
    if new and run_id is not None:
        raise RequestError(f"--new and --run-id {run_id!r} exclude each other: give one of them")
    result = heliograph.train(heliograph.load_recipe(recipe, overrides), new=new, run_id=run_id)
    return Answer(describe_result(result), result)


def describe_result(result: dict[str, Any]) -> str:
    """What came out, and how to look at it."""
    from heliograph.pipeline.job.job import ui_command

    metrics, model = result["metrics"], result["model"]
    short, kept = ("test", "test") if "test/bleu" in metrics else ("valid", "validation")
    return "\n".join(
        [
            f"trained for {result['steps']} steps",
            f"registered as {model['uri']}: BLEU {metrics[f'{short}/bleu']:.2f}, "
            f"chrF {metrics[f'{short}/chrf']:.2f} on the {kept} set",
            f"look at the run: {ui_command(result)}",
        ]
    )


if __name__ == "__main__":
    run_alone(train)
