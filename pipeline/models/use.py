"""A finished model at work, in any process that has only the registry: scores, translations."""

from collections.abc import Sequence
from tempfile import TemporaryDirectory
from typing import Any

from heliograph.pipeline.checkpoints.model_folder import read_settings
from heliograph.pipeline.cluster.start import start_ray
from heliograph.pipeline.corpus.corpus import prepare_corpus
from heliograph.pipeline.promotion.ledger import open_ledger
from heliograph.pipeline.promotion.pinned_sets import pin_set
from heliograph.pipeline.registry import registry
from heliograph.pipeline.registry.versions import list_versions, open_registry
from heliograph.pipeline.request.decoding import Decoding
from heliograph.pipeline.request.recipe import Data, Location
from heliograph.pipeline.request.recipe_file import parse_decoding
from heliograph.pipeline.scoring.evaluate import evaluate, looks_tokenized, read_evaluation_set
from heliograph.pipeline.sources.source import check_source
from heliograph.pipeline.tracking.server import say
from heliograph.pipeline.translation.engines import ENGINE, Engine, open_engine
from heliograph.pipeline.translation.translate import RunsModel


def evaluate_model(
    model: str,
    location: Location | None = None,
    source: str = "source",
    target: str = "target",
    split: str = "validation",
    engine: Engine = ENGINE,
) -> dict[str, Any]:
    """Score a model on the evaluation set that it brings, or on another.

    Args:
        model: any MODEL, see `model_uri`.
        location: None: the pinned set. Else a data set with columns `source` and `target`.

    Returns:
        The result as `heliograph evaluate --json` prints it.
    """
    data = None if location is None else _check(location, source, target, split)
    folder = registry.fetch_model(model)
    pairs = read_evaluation_set(folder) if data is None else _read(data, split)
    if (told := looks_tokenized([target for _, target in pairs])) is not None:
        say(told)
    scores = evaluate(open_engine(folder, engine), pairs, read_settings(folder))
    return {
        "bleu": scores.bleu,
        "chrf": scores.chrf,
        "signatures": scores.signatures,
        "sentences": scores.sentences,
    }


def pin_evaluation_set(
    name: str, set_name: str, location: Location, source: str, target: str, split: str
) -> dict[str, Any]:
    """Pin a data set for the gate's rules about the registered model `name`.

    Returns:
        The result as `heliograph pin --json` prints it.
    """
    data = _check(location, source, target, split)
    client = open_registry()
    list_versions(client, name)
    pairs = _read(data, split)
    ledger = open_ledger(client, name)
    return pin_set(client, ledger, set_name, pairs, str(location), f"{source}→{target}")


def _check(location: Location, source: str, target: str, split: str) -> Data:
    data = Data(train=location, validation=location, source=source, target=target)
    check_source(location, data, split)
    return data


def _read(data: Data, split: str) -> list[tuple[str, str]]:
    """The usable pairs of the data set."""
    start_ray()
    with TemporaryDirectory() as storage:
        return prepare_corpus(data.validation, data, split, 512, storage).head(None)


def load_translator(
    model: str, engine: Engine = ENGINE, decoding: Sequence[str] = ()
) -> tuple[RunsModel, Decoding]:
    """What translates with any MODEL, and the decoding settings that it was scored with, unless
    `decoding` says otherwise: key=value.

    Raises:
        RequestError: the model is not there, has no export for that engine, or a setting is wrong.
    """
    folder = registry.fetch_model(model)
    settings = parse_decoding(read_settings(folder), decoding)
    return open_engine(folder, engine), settings
