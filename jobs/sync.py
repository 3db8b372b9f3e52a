"""`heliograph sync RECIPE [key.path=value …]`: delivers metrics that wait on disk."""

from dataclasses import asdict

from jobs.command import Answer, Overrides, command, run_alone
from jobs.train import RecipePath
from pipeline.model_uri import tracking_uri
from pipeline.recipe_file import load_recipe


@command
def sync(recipe: RecipePath, overrides: Overrides = None) -> Answer:
    """Put into a job's run what its tracking server was not there to take.

    A job that is started again does this by itself.
    """
    loaded = load_recipe(recipe, overrides)
    from pipeline.prepare import storage_of
    from pipeline.sync import sync_job

    folder = f"{storage_of(loaded)}/jobs/{loaded.job_id}"
    delivered = sync_job(tracking_uri(), folder)
    if delivered.metrics or delivered.events:
        text = (
            f"{delivered.metrics} metrics of {delivered.steps} steps and {delivered.events} events "
            f"arrived at {tracking_uri()}"
        )
    else:
        text = f"nothing waits in {folder}"
    return Answer(text, asdict(delivered) | {"folder": folder})


if __name__ == "__main__":
    run_alone(sync)
