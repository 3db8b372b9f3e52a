"""Training plans of jobs that no worker follows."""

from pathlib import Path
from typing import Any

from heliograph.pipeline.request import recipe
from heliograph.pipeline.training.plan import TrainingPlan


def plan_without_data(folder: Path, **settings: Any) -> TrainingPlan:
    """Of a job in this folder; the sections of its recipe are the defaults, but for `settings`."""
    sections: dict[str, Any] = {
        "model": recipe.Model(),
        "batches": recipe.Batches(),
        "augment": recipe.Augment(),
        "train": recipe.Train(steps=3),
        "validation": recipe.Validation(),
        "evaluate": recipe.Evaluate(),
    }
    return TrainingPlan(
        folder=str(folder),
        corpora=(),
        validation_corpus="",
        tokenizer="",
        seed=0,
        **sections | settings,
        log_every_steps=1,
        threads=None,
        recipe_yaml="",
        tracking_uri="",
        run_id="run",
        run_started=0.0,
    )
