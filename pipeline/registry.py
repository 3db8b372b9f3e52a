"""The registry: versions in and out, the aliases `challenger` and `champion`, and the gate between.

A first version becomes champion; any other must beat the champion by a margin, on the evaluation
set that is pinned to it and with both decoded alike.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities.model_registry import ModelVersion
from mlflow.tracking import MlflowClient

from pipeline.errors import RequestError
from pipeline.evaluate import Scores, evaluate, read_evaluation_set
from pipeline.model_folder import read_settings
from pipeline.model_uri import RegisteredModel, check_model, parse_model
from pipeline.recipe import Evaluate
from pipeline.translate import Translator
from pipeline.versions import (
    add_version,
    download,
    fetch_version,
    find_version,
    list_versions,
    open_registry,
)

CHAMPION, CHALLENGER = "champion", "challenger"

# Tags of a version. Floats are written with all their digits.
BLEU, CHRF, SIGNATURES = "heliograph.bleu", "heliograph.chrf", "heliograph.signatures"
EVALUATION_DIGEST = "heliograph.evaluation.digest"
EVALUATION_SETTINGS = "heliograph.evaluation.settings"
DECISION = "heliograph.decision"

# A tag of the registered model: the champions before the present one, oldest first, as JSON.
CHAMPIONS = "heliograph.champions"


@dataclass(frozen=True)
class Decision:
    """What the gate or a rollback did.

    Attributes:
        promoted: the alias `champion` moved.
        champion: the version that has it now.
        previous: the version that had it before.
    """

    promoted: bool
    reason: str
    champion: int | None
    previous: int | None


def fetch_model(model: str) -> str:
    """A local folder, only to be read, with the model that a MODEL argument names.

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
        return str(fetch_version(find_version(client, wanted)))
    folder = download(model)
    packed = folder / "artifacts" / "model"  # the run may have logged a whole MLflow model there
    return str(parse_model(str(packed if packed.is_dir() else folder)))


def register(
    run_id: str, folder: str | Path, name: str, scores: Scores, evaluation_digest: str
) -> int:
    """Make the model of `folder` a version of the registered model `name`, and its challenger.

    The same weights from the same run are one version, however often they are registered.

    Args:
        folder: a model folder; recipe.yaml and evaluation.parquet go with it where they are there.
        scores: of this model, decoded as its recipe says, on the evaluation set of that digest.

    Returns:
        The version's number.

    Raises:
        RequestError: the tracking server does not answer.
    """
    client = open_registry()
    tags = {
        BLEU: repr(scores.bleu),
        CHRF: repr(scores.chrf),
        SIGNATURES: json.dumps(scores.signatures),
        EVALUATION_DIGEST: evaluation_digest,
        EVALUATION_SETTINGS: _to_json(read_settings(folder)),
    }
    version = add_version(client, run_id, Path(folder), name, tags)
    number = int(version.version)
    challenger = client.get_registered_model(name).aliases.get(CHALLENGER, 0)
    if number > int(challenger):  # a job that is sent again does not displace a newer candidate
        client.set_registered_model_alias(name, CHALLENGER, str(number))
    return number


def promote(name: str, version: int | None = None, margin: float = 0.2) -> Decision:
    """Make a version champion if it beats the present one by `margin` BLEU points.

    Both are scored on the evaluation set pinned to the challenger, with the same settings. A score
    that is known for that set is not computed again.

    Args:
        version: None: the challenger, or else the newest version.

    Raises:
        RequestError: there is no such model or version, it has no pinned evaluation set, or the
            tracking server does not answer.
    """
    client = open_registry()
    challenger = _candidate(client, name, version)
    champion = _champion(client, name)
    new, old = int(challenger.version), int(champion.version) if champion else None
    if new == old:
        return Decision(False, f"version {new} is the champion already", old, old)
    bleu = _bleu(client, challenger, challenger)
    if champion is None:
        won, reason = True, f"version {new} is the first champion, with BLEU {bleu:.2f}"
    else:
        present = _bleu(client, champion, challenger)
        won = bleu >= present + margin
        reason = (
            f"version {new} has BLEU {bleu:.2f}, {bleu - present:+.2f} beside the {present:.2f} of "
            f"the champion, version {old}; it takes {margin:+g} to replace it"
        )
    client.set_model_version_tag(name, str(new), DECISION, reason)
    if not won:
        return Decision(False, reason, old, old)
    if old is not None:
        # Before the alias moves: if it then does not, `rollback` finds the present champion here
        # and passes over it.
        _write_history(client, name, [*_history(client, name), old])
    client.set_registered_model_alias(name, CHAMPION, str(new))
    return Decision(True, reason, new, old)


def rollback(name: str) -> Decision:
    """Give the alias `champion` back to the version that had it before; repeated, further back.

    Raises:
        RequestError: there is no such model, no champion before the present one, or the tracking
            server does not answer.
    """
    client = open_registry()
    existing = {int(version.version) for version in list_versions(client, name)}
    champion = _champion(client, name)
    present = int(champion.version) if champion else None
    history = [number for number in _history(client, name) if number in existing]
    while history and history[-1] == present:
        history.pop()
    if not history:
        raise RequestError(
            f"registered model {name!r} has no champion to go back to"
            + (f": version {present} is the first" if present else "; nothing was promoted yet")
        )
    *earlier, previous = history
    client.set_registered_model_alias(name, CHAMPION, str(previous))
    _write_history(client, name, earlier)
    reason = f"version {previous} is champion again" + (f", after {present}" if present else "")
    return Decision(True, reason, previous, present)


def _candidate(client: MlflowClient, name: str, number: int | None) -> ModelVersion:
    """The version to be judged; None: the challenger, or else the newest."""
    if number is not None:
        return find_version(client, RegisteredModel(name, version=number))
    versions = list_versions(client, name)
    if not versions:
        raise RequestError(f"registered model {name!r} has no version yet")
    return _by_alias(client, name, CHALLENGER) or versions[0]


def _champion(client: MlflowClient, name: str) -> ModelVersion | None:
    return _by_alias(client, name, CHAMPION)


def _by_alias(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    if alias not in client.get_registered_model(name).aliases:
        return None
    return client.get_model_version_by_alias(name, alias)


def _bleu(client: MlflowClient, version: ModelVersion, challenger: ModelVersion) -> float:
    """BLEU of `version` on the challenger's evaluation set, as the challenger was decoded; computed
    if it is not known, and then kept on the version."""
    pinned = [challenger.tags.get(key) for key in (EVALUATION_DIGEST, EVALUATION_SETTINGS)]
    if None in pinned:
        raise RequestError(
            f"version {challenger.version} of {challenger.name!r} has no evaluation set to be "
            "judged on; versions that `heliograph train` registers have one"
        )
    if [version.tags.get(key) for key in (EVALUATION_DIGEST, EVALUATION_SETTINGS)] == pinned:
        return float(version.tags[BLEU])
    key = "heliograph.score." + hashlib.sha256(json.dumps(pinned).encode()).hexdigest()[:16]
    if key not in version.tags:
        scores = evaluate(
            Translator.load(fetch_version(version)),
            read_evaluation_set(fetch_version(challenger)),
            Evaluate(**json.loads(challenger.tags[EVALUATION_SETTINGS])),
        )
        value = json.dumps({"bleu": scores.bleu, "chrf": scores.chrf})
        client.set_model_version_tag(version.name, str(version.version), key, value)
        return scores.bleu
    return float(json.loads(version.tags[key])["bleu"])


def _history(client: MlflowClient, name: str) -> list[int]:
    return list(json.loads(client.get_registered_model(name).tags.get(CHAMPIONS, "[]")))


def _write_history(client: MlflowClient, name: str, history: list[int]) -> None:
    client.set_registered_model_tag(name, CHAMPIONS, json.dumps(history))


def _to_json(settings: Evaluate) -> str:
    return json.dumps(settings.model_dump(), sort_keys=True)
