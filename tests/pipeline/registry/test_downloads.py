"""What is copied from a store elsewhere: no more than is needed, and for no longer."""

import uuid
from pathlib import Path

import pytest

from heliograph.pipeline.registry.downloads import download
from heliograph.pipeline.registry.registry import fetch_model
from heliograph.pipeline.request.errors import RequestError
from tests.pipeline.conftest import MakeModel
from tests.pipeline.model_store import Store
from tests.pipeline.registry.test_registry import run_python
from tests.tracking_server import MlflowServer

FETCH = """
import sys
from heliograph.pipeline.registry.registry import fetch_model
print(fetch_model(sys.argv[1]))
"""


class RemoteStore(Store):
    """Whose artifacts are to be had from the server alone."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, f"tiny-{uuid.uuid4().hex[:8]}")
        experiment = self.client.create_experiment(f"{self.name}-remote")
        self.run_id = self.client.create_run(experiment).info.run_id


@pytest.fixture
def remote(tmp_path: Path, server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> RemoteStore:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    return RemoteStore(tmp_path)


def test_exports_are_copied_only_for_an_engine_that_needs_them(
    remote: RemoteStore, make_model: MakeModel, tmp_path: Path
) -> None:
    number = remote.register(make_model(1))
    model_id = str(remote.client.get_model_version(remote.name, str(number)).source)
    export = tmp_path / "added" / "artifacts" / "model" / "ctranslate2"
    export.mkdir(parents=True)
    (export / "model.bin").write_bytes(b"large")
    remote.client.log_model_artifacts(model_id.removeprefix("models:/"), str(tmp_path / "added"))
    uri = f"models:/{remote.name}/{number}"
    files = {"model.json", "model.safetensors", "tokenizer.json", "recipe.yaml"}
    files.add("evaluation.parquet")

    for engine, exports in (("torch", set()), ("ctranslate2", {"ctranslate2"})):
        into = tmp_path / engine
        into.mkdir()
        folder = Path(fetch_model(uri, engine, into=str(into)))  # type: ignore[arg-type]
        assert folder.is_relative_to(into)
        assert {path.name for path in folder.iterdir()} == files | exports


def test_a_copy_goes_with_its_process(
    remote: RemoteStore, make_model: MakeModel, tmp_path: Path
) -> None:
    number = remote.register(make_model(1))
    place = tmp_path / "temporary"
    place.mkdir()
    copy = run_python(FETCH, tmp_path, f"models:/{remote.name}/{number}", TMPDIR=str(place))
    assert Path(copy).is_relative_to(place)
    assert list(place.iterdir()) == []


def test_a_local_store_is_not_copied(store: Store, make_model: MakeModel, tmp_path: Path) -> None:
    number = store.register(make_model(1))
    into = tmp_path / "into"
    into.mkdir()
    folder = Path(fetch_model(f"models:/tiny/{number}", into=str(into)))
    assert folder.is_relative_to(store.folder / "artifacts")
    assert list(into.iterdir()) == []


def test_what_is_not_there_is_named(remote: RemoteStore) -> None:
    with pytest.raises(RequestError, match=f"'runs:/{remote.run_id}/nothing' cannot be read"):
        download(f"runs:/{remote.run_id}/nothing")
