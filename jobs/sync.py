"""`heliograph sync RECIPE [key.path=value …]`: delivers metrics that wait on disk."""

from dataclasses import asdict

from heliograph.jobs.command import Answer, Overrides, command, run_alone
from heliograph.jobs.train import RecipePath
from heliograph.pipeline.request.model_uri import tracking_uri
from heliograph.pipeline.request.recipe_file import load_recipe


@command
def sync(recipe: RecipePath, overrides: Overrides = None) -> Answer:
    """Put into a job's run what its tracking server was not there to take.

    A job that is started again does this by itself.
    """
    loaded = load_recipe(recipe, overrides)
    from heliograph.pipeline.storage.filesystems import absolute
    from heliograph.pipeline.tracking.sync import Delivered, job_folders, sync_job

    folders = job_folders(absolute(loaded.storage), loaded.job_id)
    total = Delivered()
    for folder in folders:
        total = total.plus(sync_job(tracking_uri(), folder))
    if total.metrics or total.events:
        text = (
            f"{total.metrics} metrics of {total.steps} steps and {total.events} events "
            f"arrived at {tracking_uri()}"
        )
    else:
        text = (
            f"nothing waits in the folders of job {loaded.job_id}: {', '.join(folders) or 'none'}"
        )
    return Answer(text, asdict(total) | {"folders": folders})


if __name__ == "__main__":
    run_alone(sync)
