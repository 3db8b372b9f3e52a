"""A finished model at work, in any process that has only the registry: scores, translations."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline import registry
from pipeline.cluster import start_ray
from pipeline.corpus import prepare_corpus
from pipeline.evaluate import evaluate, read_evaluation_set
from pipeline.recipe import Data, Evaluate, Location, load_recipe
from pipeline.source import check_source
from pipeline.translate import Translator


def evaluate_model(
    model: str,
    location: Location | None = None,
    source: str = "source",
    target: str = "target",
    split: str = "validation",
) -> dict[str, Any]:
    """Score a model on the evaluation set that it brings, or on another.

    Args:
        model: any MODEL, see `model_uri`.
        location: None: the pinned set. Else a data set with columns `source` and `target`.

    Returns:
        The result as `heliograph evaluate --json` prints it.
    """
    data = None
    if location is not None:
        data = Data(train=location, validation=location, source=source, target=target)
        check_source(location, data, split)
    folder = registry.fetch_model(model)
    if data is None:
        pairs = read_evaluation_set(folder)
    else:
        start_ray()
        with TemporaryDirectory() as storage:
            pairs = prepare_corpus(data.validation, data, split, 512, storage).head(None)
    scores = evaluate(Translator.load(folder), pairs, _settings(folder))
    return {
        "bleu": scores.bleu,
        "chrf": scores.chrf,
        "signatures": scores.signatures,
        "sentences": scores.sentences,
    }


def load_translator(model: str) -> tuple[Translator, Evaluate]:
    """A translator of any MODEL, and the decoding settings that it was scored with."""
    folder = registry.fetch_model(model)
    return Translator.load(folder), _settings(folder)


def _settings(folder: str) -> Evaluate:
    """The decoding settings in a model folder's recipe; the defaults where it has none."""
    path = Path(folder) / "recipe.yaml"
    return load_recipe(path).evaluate if path.is_file() else Evaluate()
