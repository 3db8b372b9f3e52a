"""Model versions in MLflow: found, written and read back.

A version is a model folder with the code that runs it, linked to its run and to what it was scored
on. Everything the gate needs to know about a version is in its tags, which MLflow writes together
with the version: one without them was not registered by Heliograph.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version as installed_version
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
from mlflow.entities import LoggedModelOutput
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.tracking import MlflowClient

from pipeline.errors import RequestError
from pipeline.model_folder import read_settings
from pipeline.model_uri import RegisteredModel, check_version, tracking_uri, unknown_model
from pipeline.tracking_server import connect

MODEL_FILES = ("model.json", "model.safetensors", "tokenizer.json")
COMPANIONS = ("recipe.yaml", "evaluation.parquet")

CHECKSUMS = "heliograph.checksums"
"""On a version: SHA-256 of each file of its model folder, as JSON."""

REQUIREMENTS = (
    "fsspec",
    "mlflow",
    "numpy",
    "pyarrow",
    "pydantic",
    "PyYAML",
    "safetensors",
    "tokenizers",
    "torch",
)
"""What a registered model needs to load; pinned to the versions it was scored with."""


def open_registry() -> MlflowClient:
    """A client of the configured store, after one answer from it.

    Raises:
        RequestError: there was no answer.
    """
    client = connect(tracking_uri())
    try:
        client.search_registered_models(max_results=1)
    except MlflowException as error:
        raise RequestError(
            f"tracking server {client.tracking_uri!r} does not answer ({error}); "
            "start it, or correct MLFLOW_TRACKING_URI"
        ) from error
    return client


def model_exists(client: MlflowClient, name: str) -> bool:
    return bool(client.search_registered_models(f"name = '{name}'", max_results=1))


def list_versions(client: MlflowClient, name: str) -> Sequence[ModelVersion]:
    """All versions of a registered model, newest first.

    Raises:
        RequestError: there is no such model.
    """
    if not model_exists(client, name):
        names = [model.name for model in client.search_registered_models(max_results=1000)]
        raise unknown_model(name, names)
    versions = client.search_model_versions(f"name = '{name}'", max_results=10_000)
    return sorted(versions, key=lambda version: -int(version.version))


def find_version(client: MlflowClient, wanted: RegisteredModel) -> ModelVersion:
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


def add_version(
    client: MlflowClient, run_id: str, folder: Path, name: str, tags: Mapping[str, str]
) -> ModelVersion:
    """Register `folder` with the code to run it, or return the version that already holds the same
    weights of the same run: a job that is sent again must not make a second one."""
    checksums = {path.name: _sha256(path) for path in _files(folder)}
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


def fetch_version(version: ModelVersion) -> Path:
    """A local folder with a version's model, after its files were checked.

    Raises:
        RequestError: it holds no model, or not the one that was registered.
    """
    folder = download(f"models:/{version.name}/{version.version}/artifacts/model")
    for name, expected in json.loads(version.tags.get(CHECKSUMS, "{}")).items():
        if not (folder / name).is_file() or _sha256(folder / name) != expected:
            raise RequestError(
                f"version {version.version} of {version.name!r} is not what was registered: {name} "
                "was changed or removed since; register the model again"
            )
    return folder


def download(uri: str) -> Path:
    """A folder of artifacts on this machine: a copy, or the store's own if that is local.

    Raises:
        RequestError: there is none.
    """
    try:
        return Path(mlflow.artifacts.download_artifacts(uri))
    except (MlflowException, OSError) as error:
        raise RequestError(f"{uri!r} cannot be read: {error}") from error


def _log_model(client: MlflowClient, run_id: str, folder: Path, name: str) -> str:
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
        here = Path(__file__).parent
        mlflow.pyfunc.save_model(
            str(pyfunc),
            python_model=str(here / "pyfunc.py"),
            artifacts={"model": str(content)},
            code_paths=[str(here), str(here.parent / "model")],
            # The signature comes from this, and with it the defaults of `params`.
            input_example=(["A sentence to translate."], read_settings(folder).model_dump()),
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


def _files(folder: Path) -> list[Path]:
    """The files of a model folder that are registered; a checkpoint holds more."""
    companions = [folder / name for name in COMPANIONS if (folder / name).is_file()]
    return [*(folder / name for name in MODEL_FILES), *companions]


def _pinned(package: str) -> str:
    # torch's builds for CPU and CUDA differ by a suffix, which package indexes do not have.
    return f"{package}=={installed_version(package).split('+')[0]}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
