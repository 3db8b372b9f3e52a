"""A finished model at work, in any process that has only the registry: scores, translations."""

from tempfile import TemporaryDirectory
from typing import Any

from pipeline import registry
from pipeline.cluster import start_ray
from pipeline.corpus import prepare_corpus
from pipeline.evaluate import evaluate, read_evaluation_set
from pipeline.model_folder import read_settings
from pipeline.recipe import Data, Evaluate, Location
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
    scores = evaluate(Translator.load(folder), pairs, read_settings(folder))
    return {
        "bleu": scores.bleu,
        "chrf": scores.chrf,
        "signatures": scores.signatures,
        "sentences": scores.sentences,
    }


def load_translator(model: str) -> tuple[Translator, Evaluate]:
    """A translator of any MODEL, and the decoding settings that it was scored with."""
    folder = registry.fetch_model(model)
    return Translator.load(folder), read_settings(folder)
