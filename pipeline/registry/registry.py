"""The registry: models out of it, and finished models into it as versions, the newest of them the
challenger."""

import json
from pathlib import Path

from heliograph.pipeline.checkpoints.model_folder import read_settings
from heliograph.pipeline.registry.contender import keep_translations
from heliograph.pipeline.registry.downloads import download
from heliograph.pipeline.registry.model_card import CARD, ModelCard
from heliograph.pipeline.registry.provenance import (
    BEGUN_ANEW_AFTER,
    TOKENIZER_DIGEST,
    read_provenance,
)
from heliograph.pipeline.registry.versions import (
    CHALLENGER,
    add_version,
    describe_version,
    fetch_version,
    find_version,
    open_registry,
)
from heliograph.pipeline.request.decoding import Evaluate
from heliograph.pipeline.request.model_uri import RegisteredModel, check_model, parse_model
from heliograph.pipeline.scoring.evaluate import Scores, read_evaluation_set
from heliograph.pipeline.translation.engines import ENGINE, Engine

# Tags of a version. Floats are written with all their digits.
BLEU, CHRF, SIGNATURES = "heliograph.bleu", "heliograph.chrf", "heliograph.signatures"
EVALUATION_DIGEST = "heliograph.evaluation.digest"
EVALUATION_SETTINGS = "heliograph.evaluation.settings"


def fetch_model(model: str, engine: Engine = ENGINE, into: str | None = None) -> str:
    """A local folder, only to be read, with the model that a MODEL argument names, and what the
    engine needs of it.

    Args:
        into: an empty folder for what has to be copied. None: the copy goes with this process.

    Raises:
        RequestError: it is misspelt or not there, its files are not those that were registered, or
            the tracking server does not answer.
    """
    wanted = parse_model(model)
    if isinstance(wanted, Path):
        return str(wanted)
    check_model(model)
    client = open_registry()
    if isinstance(wanted, RegisteredModel):
        version = find_version(client, wanted)
        return str(fetch_version(version, exports=engine != ENGINE, into=into))
    folder = download(model, into=into)
    packed = folder / "artifacts" / "model"  # the run may have logged a whole MLflow model there
    return str(parse_model(str(packed if packed.is_dir() else folder)))


def register(
    run_id: str,
    folder: str | Path,
    name: str,
    scores: Scores,
    evaluation_digest: str,
    device: str,
    card: ModelCard | None = None,
) -> int:
    """Make the model of `folder` a version of the registered model `name`, and its challenger.

    The same weights from the same run are one version, however often they are registered.

    Args:
        folder: a model folder with its evaluation set; recipe.yaml goes with it where it is there.
        scores: of this model, decoded as its recipe says, on the evaluation set of that digest.
        device: "cpu" or "cuda": what it was scored on.
        card: becomes README.md in the folder, and the version's description.

    Returns:
        The version's number.

    Raises:
        RequestError: the tracking server does not answer.
    """
    client = open_registry()
    if card is not None:
        Path(folder, CARD).write_text(card.page(), encoding="utf-8")
    tags = {
        BLEU: repr(scores.bleu),
        CHRF: repr(scores.chrf),
        SIGNATURES: json.dumps(scores.signatures),
        EVALUATION_DIGEST: evaluation_digest,
        EVALUATION_SETTINGS: _to_json(read_settings(folder)),
    }
    provenance = card.provenance if card else read_provenance(client, run_id, Path(folder))
    tags |= provenance.to_tags()
    for key in (TOKENIZER_DIGEST, BEGUN_ANEW_AFTER):
        if key in tags:
            client.set_tag(run_id, key, tags[key])
    version = add_version(client, run_id, Path(folder), name, tags)
    number = int(version.version)
    if card is not None:
        describe_version(client, name, number, card.description(number))
    pairs = read_evaluation_set(folder)
    keep_translations(client, version, pairs, read_settings(folder), scores.hypotheses, device)
    challenger = client.get_registered_model(name).aliases.get(CHALLENGER, 0)
    if number > int(challenger):  # a job that is sent again does not displace a newer candidate
        client.set_registered_model_alias(name, CHALLENGER, str(number))
    return number


def _to_json(settings: Evaluate) -> str:
    return json.dumps(settings.model_dump(), sort_keys=True)
