"""A finished model at work, in any process that has only the registry: scores, translations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from heliograph.pipeline.checkpoints.model_folder import read_max_characters, read_settings
from heliograph.pipeline.corpus.pairs import read_pairs
from heliograph.pipeline.promotion.ledger import open_ledger
from heliograph.pipeline.promotion.pinned_sets import pin_set
from heliograph.pipeline.registry import registry
from heliograph.pipeline.registry.versions import list_versions, open_registry
from heliograph.pipeline.request.data import Data
from heliograph.pipeline.request.decoding import Decoding
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.request.recipe_file import parse_decoding
from heliograph.pipeline.scoring.evaluate import evaluate, looks_tokenized, read_evaluation_set
from heliograph.pipeline.sources.source import Source, check_source, find_source
from heliograph.pipeline.tracking.server import say
from heliograph.pipeline.translation.engines import ENGINE, Engine, open_engine
from heliograph.pipeline.translation.translate import RunsModel, Translation, check_lengths
from heliograph.pipeline.translation.workplace import Workplace


def evaluate_model(model: str, data: Data | None = None, engine: Engine = ENGINE) -> dict[str, Any]:
    """Score a model on the evaluation set that it brings, or on another.

    Args:
        model: any MODEL, see `model_uri`.
        data: its `validation`. None: the set that the model brings.

    Returns:
        The result as `heliograph evaluate --json` prints it.
    """
    source = None if data is None else _find(data)
    folder = registry.fetch_model(model, engine)
    if source is None or data is None:
        pairs = read_evaluation_set(folder)
    else:
        pairs = read_pairs(source, data)
    if (told := looks_tokenized([target for _, target in pairs])) is not None:
        say(told)
    scores = evaluate(Workplace().open(folder, engine), pairs, read_settings(folder))
    return {
        "bleu": scores.bleu,
        "chrf": scores.chrf,
        "signatures": scores.signatures,
        "sentences": scores.sentences,
    }


def pin_evaluation_set(name: str, set_name: str, data: Data) -> dict[str, Any]:
    """Pin `data.validation` for the gate's rules about the registered model `name`.

    Returns:
        The result as `heliograph pin --json` prints it.
    """
    source = _find(data)
    client = open_registry()
    list_versions(client, name)
    pairs = read_pairs(source, data)
    ledger = open_ledger(client, name)
    direction = f"{data.source}→{data.target}"
    return pin_set(client, ledger, set_name, pairs, str(data.validation), direction)


def _find(data: Data) -> Source:
    source = find_source(data.validation, data, data.validation_split)
    check_source(source)
    return source


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory, and how it decodes."""

    engine: RunsModel
    decoding: Decoding
    max_characters: int
    """Of a sentence: longer ones are refused."""

    def translate(self, sentences: Sequence[str]) -> list[str]:
        """One translation per sentence, in their order: the best, or one that is drawn. Of nothing
        but white space: nothing."""
        return [found[0].text if found else "" for found in self.alternatives(sentences)]

    def alternatives(self, sentences: Sequence[str]) -> list[list[Translation]]:
        """The `n_best` translations of each sentence, the best first, with their scores.

        Raises:
            RequestError: a sentence is too long.
        """
        check_lengths(sentences, self.max_characters)
        return self.engine.alternatives(sentences, self.decoding)


def load_model(
    model: str,
    engine: Engine = ENGINE,
    decoding: Sequence[str] = (),
    max_characters: int | None = None,
) -> LoadedModel:
    """Any MODEL, with the decoding settings that it was scored with, unless `decoding` says
    otherwise: key=value.

    Args:
        max_characters: of a sentence. None: as long as those that it was trained on.

    Raises:
        RequestError: the model is not there, has no export for that engine, or a setting is wrong.
    """
    if max_characters is not None and max_characters < 1:
        raise RequestError(f"max_characters {max_characters}: a sentence has one at least")
    folder = registry.fetch_model(model, engine)
    settings = parse_decoding(read_settings(folder), decoding)
    if max_characters is None:
        max_characters = read_max_characters(folder)
    return LoadedModel(open_engine(folder, engine), settings, max_characters)
