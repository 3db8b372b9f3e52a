"""Trains sequence-to-sequence Transformers on Ray, tracked and promoted in MLflow.

What the commands do, for notebooks and other programs:

    import heliograph

    recipe = heliograph.load_recipe("recipe.yaml", ["train.steps=100"])
    result = heliograph.train(recipe)
    model = heliograph.load_model(result["model"]["uri"])
    model.translate(["A dog runs across the grass."])
    heliograph.promote(recipe.model_name)

MODEL is what it is on a command line: models:/NAME@ALIAS, models:/NAME/VERSION, runs:/RUN_ID/PATH,
or a folder. What cannot be done raises `heliograph.RequestError`, a ValueError whose message names
the value and what would be valid. Torch, Ray and MLflow are loaded by the functions that need them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heliograph.pipeline.request.errors import JobStopped, RequestError

if TYPE_CHECKING:
    from heliograph.pipeline.models.use import LoadedModel
    from heliograph.pipeline.promotion.decision import Decision
    from heliograph.pipeline.request.data import Location
    from heliograph.pipeline.request.decoding import Bulk
    from heliograph.pipeline.request.recipe import Recipe
    from heliograph.pipeline.translation.engines import Engine

__all__ = [
    "JobStopped",
    "RequestError",
    "evaluate",
    "load_model",
    "load_recipe",
    "promote",
    "train",
    "translate",
    "translate_dataset",
]


def load_recipe(recipe: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> "Recipe":
    """A recipe from its file, or from nested dictionaries, with `key.path=value` overrides.

    Raises:
        RequestError: the file is missing or no YAML, a key is unknown, a value is invalid.
    """
    from heliograph.pipeline.request.recipe_file import load_recipe

    return load_recipe(recipe, overrides)


def train(recipe: "Recipe", *, new: bool = False, run_id: str | None = None) -> dict[str, Any]:
    """Run one training job, from tokenizer to registered challenger; or go on with it.

    What is impossible is said before torch and Ray are loaded.

    Args:
        new: begin from the beginning in a new run, whatever was done before.
        run_id: go on with this run of the job, not with its newest.

    Returns:
        The result as `heliograph train --json` prints it.

    Raises:
        RequestError: the recipe cannot be run on this data, cluster or tracking server.
        JobStopped: training cannot go on.
        KeyboardInterrupt: it was stopped; started again, it goes on.
    """
    from heliograph.pipeline.request.placement import check_here

    check_here(recipe.cluster)
    from heliograph.pipeline.corpus.found_data import find_recipe_data
    from heliograph.pipeline.storage.filesystems import absolute

    found = find_recipe_data(recipe.data, absolute(recipe.storage))
    from heliograph.pipeline.job.job import run_training_job

    return run_training_job(recipe, found, new=new, run_id=run_id)


def evaluate(
    model: str,
    data: "Location | None" = None,
    source: str = "source",
    target: str = "target",
    split: str = "validation",
    engine: "Engine" = "torch",
    *,
    configuration: str | None = None,
    revision: str | None = None,
) -> dict[str, Any]:
    """Score a MODEL by beam search, as it was set at training.

    Args:
        data: a data set with columns `source` and `target`. None: the set that the model brings.
        configuration, revision: of a hub data set, as a recipe's section `data` has them.

    Returns:
        The result as `heliograph evaluate --json` prints it.

    Raises:
        RequestError: the model or the data are not there, or it has no export for the engine.
    """
    from heliograph.pipeline.request.model_uri import check_model

    check_model(model)  # at once: what follows loads torch and MLflow
    from heliograph.pipeline.models.use import evaluate_model
    from heliograph.pipeline.request.data import Data

    if data is None:
        return evaluate_model(model, None, engine)
    asked = Data.only(data, source, target, split, configuration, revision)
    return evaluate_model(model, asked, engine)


def load_model(
    model: str,
    engine: "Engine" = "torch",
    decoding: Sequence[str] = (),
    max_characters: int | None = None,
) -> "LoadedModel":
    """A MODEL that translates as it was scored, unless `decoding` says otherwise: ["beam=1"].

    Args:
        max_characters: it refuses a longer sentence, for the memory that this takes grows with the
            square of its length. None: as long as those that it was trained on.

    Raises:
        RequestError: it is not there, has no export for the engine, or a setting is wrong.
    """
    from heliograph.pipeline.request.model_uri import check_model

    check_model(model)
    from heliograph.pipeline.models.use import load_model

    return load_model(model, engine, decoding, max_characters)


def translate(
    model: str, sentences: Sequence[str], engine: "Engine" = "torch", decoding: Sequence[str] = ()
) -> list[str]:
    """One translation per sentence, in their order; for many calls, see `load_model`.

    Raises:
        RequestError: as `load_model`, or a sentence is longer than those in training.
    """
    return load_model(model, engine, decoding).translate(sentences)


def translate_dataset(
    model: str,
    data: "Location",
    output: str,
    source: str = "source",
    split: str = "test",
    engine: "Engine" = "torch",
    decoding: Sequence[str] = (),
    bulk: "Bulk | None" = None,
    *,
    configuration: str | None = None,
    revision: str | None = None,
) -> dict[str, Any]:
    """Translate a column of a data set into a folder of Parquet files, by Ray Data. The same
    request goes on with what it had begun.

    Args:
        output: a folder or URL that every node reaches: new, empty, or begun by the same request.
        configuration, revision: of a hub data set, as a recipe's section `data` has them.

    Returns:
        The result as `heliograph translate --json` prints it.

    Raises:
        RequestError: model or data are not there, or `output` holds something else.
    """
    from heliograph.pipeline.request.model_uri import check_model

    check_model(model)
    from heliograph.pipeline.bulk.dataset import translate_dataset
    from heliograph.pipeline.request.data import Data

    asked = Data.only(data, source, source, split, configuration, revision)
    return translate_dataset(model, asked, output, engine, decoding, bulk)


def promote(
    name: str,
    version: int | None = None,
    rules: Sequence[Mapping[str, Any]] | None = None,
    *,
    dry_run: bool = False,
    force: str | None = None,
) -> "Decision":
    """Make a version of a registered model its champion, if it passes the gate's rules.

    Args:
        version: None: the challenger, or else the newest version.
        rules: as a recipe's `registry.gate` has them. None: those of the version's own recipe.
        dry_run: judge only: nothing moves, and nothing is recorded.
        force: why it is to be champion whatever the rules say.

    Raises:
        RequestError: there is no such model or version, or it cannot be judged.
    """
    from heliograph.pipeline.request.model_uri import check_model, check_name
    from heliograph.pipeline.request.recipe_file import parse_gate

    gate = None if rules is None else parse_gate(list(rules))
    # At once: what follows loads torch and MLflow.
    if version is None:
        check_name(name)
    else:
        check_model(f"models:/{name}/{version}")
    from heliograph.pipeline.promotion.promote import promote

    return promote(name, version, gate, dry_run=dry_run, force=force)
