"""What MODEL and DIGEST may be on a command line, and a quick answer when it is not there.

Imports nothing heavy: a name with a typing error is answered before torch or MLflow are loaded.
"""

import os
import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from heliograph.pipeline.request.errors import RequestError, did_you_mean

FORMS = "models:/NAME@ALIAS, models:/NAME/VERSION, runs:/RUN_ID/PATH or a checkpoint folder"
SQLITE = "sqlite:///"


@dataclass(frozen=True)
class RegisteredModel:
    """models:/NAME@ALIAS or models:/NAME/VERSION; one of alias and version is None."""

    name: str
    alias: str | None = None
    version: int | None = None


@dataclass(frozen=True)
class RunArtifact:
    """runs:/RUN_ID/PATH: a model folder among a run's artifacts, or a model that it logged."""

    run_id: str
    path: str


def parse_model(model: str) -> RegisteredModel | RunArtifact | Path:
    """What `model` names; of a folder it is checked here that it holds a model.

    Raises:
        RequestError: it has none of the four forms, or is a folder without a model.
    """
    if match := re.fullmatch(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))", model):
        name, alias, version = match.groups()
        return RegisteredModel(name, alias, int(version) if version else None)
    if match := re.fullmatch(r"runs:/(\w+)/(.+)", model):
        return RunArtifact(match[1], match[2])
    if re.match(r"\w+:", model):
        raise RequestError(f"model {model!r} cannot be read; it must be {FORMS}")
    folder = Path(model)
    if not model or not folder.is_dir():
        raise RequestError(f"model {model!r} is not there; it must be {FORMS}")
    if not (folder / "model.json").is_file():
        raise RequestError(f"folder {model!r} holds no model: model.json is missing from it")
    return folder


def parse_traceable(model: str) -> RegisteredModel | RunArtifact:
    """`parse_model` for what the registry knows about: a folder has no lineage.

    Raises:
        RequestError: it has none of the three other forms.
    """
    wanted = parse_model(model)
    if isinstance(wanted, Path):
        raise RequestError(
            f"model {model!r} is a folder, which no registry knows; where a model comes from is "
            "kept with models:/NAME@ALIAS, models:/NAME/VERSION and runs:/RUN_ID/PATH"
        )
    return wanted


def check_digest(digest: str) -> str:
    """A data set's digest or the beginning of one, in lower case.

    Raises:
        RequestError: it is neither.
    """
    if not re.fullmatch(r"[0-9a-f]{8,64}", digest.lower()):
        raise RequestError(
            f"digest {digest!r} is none of a data set: it must be 8 to 64 of the characters 0-9a-f,"
            " as `heliograph lineage MODEL` shows it"
        )
    return digest.lower()


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, else a SQLite store in the folder that the command was started in."""
    return os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(Path.cwd() / "mlflow.db")


def sqlite_uri(path: Path) -> str:
    """A store's, for MLflow. Quoted is only what would have a meaning in it: MLflow also makes the
    folder of the path as it stands here."""
    return SQLITE + re.sub(
        r"\?|%(?=[0-9A-Fa-f]{2})", lambda found: f"%{ord(found[0]):02X}", str(path)
    )


def sqlite_path(uri: str) -> Path | None:
    """The file of a store; None: it is none of SQLite's."""
    if not uri.startswith(SQLITE):
        return None
    return Path(unquote(uri.removeprefix(SQLITE).partition("?")[0]))


def check_server() -> None:
    """Raises RequestError when the configured store is no server, which alone delivers notices."""
    store_uri = os.environ.get("MLFLOW_REGISTRY_URI") or tracking_uri()
    if not store_uri.startswith(("http://", "https://")):
        raise RequestError(
            f"the store {store_uri!r} is no server, and only a server sends notices: start "
            "`mlflow server`, and set MLFLOW_TRACKING_URI to its address, http://…"
        )


def check_model(model: str) -> None:
    """Say so at once if `model` is misspelt or cannot be in the configured store.

    MLflow's own client takes more than two seconds to open a SQLite store, and makes one where
    there is none, so a name, version or alias is first looked for there directly, read-only. This
    never says that a model is there: any doubt, and any other kind of store, is left to
    `registry.fetch_model`.

    Raises:
        RequestError: it is not there, with the names, versions or aliases that are.
    """
    wanted = parse_model(model)
    if not isinstance(wanted, RegisteredModel):
        return
    check_name(wanted.name)
    table = "model_versions" if wanted.alias is None else "registered_model_aliases"
    column = "version" if wanted.alias is None else "alias"
    valid = _look_up(f"SELECT {column} FROM {table} WHERE name = ?", wanted.name)
    if valid is not None:
        check_version(wanted, valid)


def check_name(name: str) -> None:
    """As `check_model`, for the name of a registered model alone."""
    names = _look_up("SELECT name FROM registered_models")
    if names is not None and name not in names:
        raise unknown_model(name, names)


def _look_up(query: str, *values: str) -> list[str] | None:
    """A column of the configured store, if that is a local SQLite file; None: it cannot be told."""
    store_uri = os.environ.get("MLFLOW_REGISTRY_URI") or tracking_uri()
    if (path := sqlite_path(store_uri)) is None:
        return None
    if not path.exists():
        return []
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as store:
            return [str(value) for (value,) in store.execute(query, values)]
    except sqlite3.Error:
        return None  # locked, or another release's tables


def unknown_model(name: str, names: list[str]) -> RequestError:
    """The error for a registered model that does not exist."""
    if not names:
        return RequestError(
            f"registered model {name!r} does not exist; there is none yet at {tracking_uri()} "
            "(`heliograph train` registers one, MLFLOW_TRACKING_URI names another store)"
        )
    return RequestError(f"registered model {name!r} does not exist; {did_you_mean(name, names)}")


def check_version(wanted: RegisteredModel, valid: list[str]) -> None:
    """Raises RequestError when the alias or version is not among the `valid` ones of its model."""
    kind, value = ("alias", wanted.alias) if wanted.alias else ("version", str(wanted.version))
    if value not in valid:
        raise RequestError(
            f"registered model {wanted.name!r} has no {kind} {value!r}; "
            + (f"valid: {', '.join(valid)}" if valid else f"it has no {kind} at all")
        )
