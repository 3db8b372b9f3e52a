"""Model versions in MLflow: found, written and read back.

A version is a model folder with the code that runs it, linked to its run and to what it was scored
on. Everything the gate needs to know about a version is in its tags, which MLflow writes together
with the version: one without them was not registered by Heliograph.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version as installed_version
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
from mlflow.entities import LoggedModelOutput
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import Model

from heliograph.pipeline.checkpoints.model_folder import read_settings
from heliograph.pipeline.registry.downloads import download
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.request.model_uri import (
    RegisteredModel,
    check_version,
    tracking_uri,
    unknown_model,
)
from heliograph.pipeline.tracking.server import Client, PatientClient, open_store
from heliograph.pipeline.translation.engines import ENGINE
from heliograph.pipeline.translation.exports import SEAL, find_exports, sha256

MODEL_FILES = ("model.json", "model.safetensors", "tokenizer.json")
COMPANIONS = ("recipe.yaml", "evaluation.parquet", "README.md")

CHALLENGER = "challenger"
"""The alias of the newest candidate."""

CHECKSUMS = "heliograph.checksums"
"""On a version: SHA-256 of each file of its model folder, as JSON."""

EXPORT = "heliograph.export."
"""And an export's name: on the logged model, whose files all its versions share. As JSON, SHA-256
of each of the export's files, and how it compared with torch."""

PAGE_SIZE = 1000
"""Versions that are asked for at once."""

REQUIREMENTS = (
    "ctranslate2",
    "fsspec",
    "mlflow",
    "numpy",
    "pandas",
    "pyarrow",
    "pydantic",
    "PyYAML",
    "safetensors",
    "tokenizers",
    "torch",
)
"""What a registered model needs to load; pinned to the versions it was scored with."""


def open_registry() -> PatientClient:
    """A client of the configured store, after one answer from it; later ones are waited for.

    Raises:
        RequestError: there was no answer, or a refusal.
    """
    open_store(tracking_uri())
    return PatientClient(tracking_uri())


def is_registered(client: Client, name: str, number: int) -> bool:
    """Whether there is such a version; whoever deletes a model deletes them all."""
    versions = client.search_model_versions(f"name = '{name}'", max_results=10_000)
    return any(int(version.version) == number for version in versions)


def model_exists(client: PatientClient, name: str) -> bool:
    return bool(client.search_registered_models(f"name = '{name}'", max_results=1))


def list_versions(client: PatientClient, name: str) -> Sequence[ModelVersion]:
    """All versions of a registered model, newest first.

    Raises:
        RequestError: there is no such model.
    """
    if not model_exists(client, name):
        names = [model.name for model in client.search_registered_models(max_results=1000)]
        raise unknown_model(name, names)
    versions = client.search_model_versions(f"name = '{name}'", max_results=10_000)
    return sorted(versions, key=lambda version: -int(version.version))


def find_version(client: PatientClient, wanted: RegisteredModel) -> ModelVersion:
    """The version that a models:/ URI names.

    Raises:
        RequestError: there is no such model, alias or version.
    """
    numbers = [str(version.version) for version in list_versions(client, wanted.name)]
    if wanted.alias is None:
        check_version(wanted, numbers)
        return client.get_model_version(wanted.name, str(wanted.version))
    check_version(wanted, sorted(client.get_registered_model(wanted.name).aliases))
    return client.get_model_version_by_alias(wanted.name, wanted.alias)


def find_candidate(client: PatientClient, name: str, number: int | None) -> ModelVersion:
    """The version to be judged; None: the challenger, or else the newest.

    Raises:
        RequestError: there is none, or its run was deleted.
    """
    versions = list_versions(client, name)
    if not versions:
        raise RequestError(f"registered model {name!r} has no version yet")
    if number is None:
        aliases = client.get_registered_model(name).aliases
        number = int(aliases.get(CHALLENGER, versions[0].version))
    version = find_version(client, RegisteredModel(name, version=number))
    if version.run_id and client.get_run(version.run_id).info.lifecycle_stage != "active":
        raise RequestError(
            f"the run of version {number} of {name!r} was deleted, and its record with it; `mlflow "
            f"runs restore --run-id {version.run_id}` brings it back"
        )
    return version


def add_version(
    client: PatientClient, run_id: str, folder: Path, name: str, tags: Mapping[str, str]
) -> ModelVersion:
    """Register `folder` with the code to run it, or return the version that already holds the same
    weights of the same run: a job that is sent again must not make a second one."""
    checksums = {path.name: sha256(path) for path in _files(folder)}
    if model_exists(client, name):
        for version in list_versions(client, name):
            known = json.loads(version.tags.get(CHECKSUMS, "{}"))
            same = all(known.get(file) == checksums[file] for file in MODEL_FILES)
            if version.run_id == run_id and same:
                return version
    else:
        client.create_registered_model(name)
    model_id = _log_model(client, run_id, folder, name)
    return client.create_model_version(
        name,
        f"models:/{model_id}",
        run_id=run_id,
        tags={**tags, CHECKSUMS: json.dumps(checksums)},
        model_id=model_id,
    )


def describe_version(client: PatientClient, name: str, number: int, description: str) -> None:
    """What the registry's page of the version shows; what somebody wrote there meanwhile stays."""
    if not client.get_model_version(name, str(number)).description:
        client.update_model_version(name, str(number), description)


def search_versions(client: PatientClient, query: str) -> list[ModelVersion]:
    """All versions that the query finds, of any model, by name and number."""
    found: list[ModelVersion] = []
    token: str | None = None
    while True:
        page = client.search_model_versions(
            query, PAGE_SIZE, order_by=["name ASC", "version_number ASC"], page_token=token
        )
        found += page
        if not (token := page.token):
            return found


def fetch_version(version: ModelVersion, *, exports: bool, into: str | None = None) -> Path:
    """A local folder with a version's model, after its files were checked; see `download`.

    Args:
        exports: whether its exports are needed, too, which are as large as the model.

    Raises:
        RequestError: it holds no model, or not the one that was registered, or an export that is
            not what `add_export` added.
    """
    checksums = json.loads(version.tags.get(CHECKSUMS, "{}"))
    names = [] if exports else [*checksums]
    folder = download(f"models:/{version.name}/{version.version}/artifacts/model", names, into)
    if exports and (found := find_exports(folder)):
        tags = PatientClient(tracking_uri()).get_logged_model(_model_id(version)).tags
        for name in found:
            known = json.loads(tags.get(EXPORT + name, "{}"))
            checksums |= known.get("files", {f"{name}/{SEAL}": "none: it was not exported"})
    for name, expected in checksums.items():
        if not (folder / name).is_file() or sha256(folder / name) != expected:
            raise RequestError(
                f"version {version.version} of {version.name!r} is not what was registered: {name} "
                "was changed or removed since; register the model again"
            )
    return folder


def add_export(
    client: PatientClient, version: ModelVersion, export: Path, check: Mapping[str, float]
) -> None:
    """Add a sealed export to a version's model, under the name of its folder.

    Files, then their checksums, then the seal: whoever is killed on the way has added nothing, and
    the next attempt writes it all again.
    """
    files = sorted(path for path in export.iterdir() if path.name != SEAL)
    seal = export / SEAL
    checksums = {f"{export.name}/{path.name}": sha256(path) for path in [*files, seal]}
    _log_into_model(client, version, export.name, files)
    known = json.dumps({"files": checksums, "check": check})
    client.set_logged_model_tags(_model_id(version), {EXPORT + export.name: known})
    _log_into_model(client, version, export.name, [seal])


def _log_model(client: PatientClient, run_id: str, folder: Path, name: str) -> str:
    """Write the model as a pyfunc from code and log it as an output of its run; its id.

    `mlflow.pyfunc.log_model` would do this for the active run only, and end that run.
    """
    experiment = client.get_run(run_id).info.experiment_id
    logged = client.create_logged_model(experiment, name, source_run_id=run_id)
    with TemporaryDirectory() as temporary:
        content = Path(temporary) / "model"
        content.mkdir()
        for path in _files(folder):
            shutil.copyfile(path, content / path.name)
        pyfunc = Path(temporary) / "pyfunc"
        mlflow.pyfunc.save_model(
            str(pyfunc),
            python_model=str(Path(__file__).parent / "pyfunc.py"),
            artifacts={"model": str(content)},
            code_paths=[str(_code(Path(temporary)))],
            # The signature comes from this, and with it the defaults of `params`.
            input_example=(["A sentence to translate."], _parameters(folder)),
            pip_requirements=[_pinned(package) for package in REQUIREMENTS],
            mlflow_model=Model(
                run_id=run_id,
                model_uuid=logged.model_id,
                model_id=logged.model_id,
                artifact_path=logged.artifact_location,
            ),
        )
        client.log_model_artifacts(logged.model_id, str(pyfunc))
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return str(logged.model_id)


def _code(folder: Path) -> Path:
    """A copy of what a registered model needs of this package: of its folders some are links."""
    package, copy = Path(str(files("heliograph"))), folder / "heliograph"
    for name in ("model", "pipeline"):
        shutil.copytree(package / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(package / "__init__.py", copy / "__init__.py")
    return copy


def _parameters(folder: Path) -> dict[str, object]:
    """What `predict` may be told, and what it does otherwise."""
    return {**read_settings(folder).search_settings(), "n_best": 1, "engine": ENGINE}


def _log_into_model(
    client: PatientClient, version: ModelVersion, name: str, files: Sequence[Path]
) -> None:
    """Put files into a folder of a registered model's folder."""
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "artifacts" / "model" / name
        folder.mkdir(parents=True)
        for path in files:
            shutil.copyfile(path, folder / path.name)
        client.log_model_artifacts(_model_id(version), temporary)


def _model_id(version: ModelVersion) -> str:
    return str(version.source).removeprefix("models:/")


def _files(folder: Path) -> list[Path]:
    """The files of a model folder that are registered; a checkpoint holds more."""
    companions = [folder / name for name in COMPANIONS if (folder / name).is_file()]
    return [*(folder / name for name in MODEL_FILES), *companions]


def _pinned(package: str) -> str:
    # torch's builds for CPU and CUDA differ by a suffix, which package indexes do not have.
    return f"{package}=={installed_version(package).split('+')[0]}"
