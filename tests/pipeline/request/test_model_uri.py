import os
import subprocess
import sys
from pathlib import Path

import pytest

from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.request.model_uri import (
    RegisteredModel,
    RunArtifact,
    check_model,
    parse_model,
)

ROOT = Path(__file__).parents[3]


def test_the_four_forms(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text("{}")
    assert parse_model("models:/en-de@champion") == RegisteredModel("en-de", alias="champion")
    assert parse_model("models:/en-de/3") == RegisteredModel("en-de", version=3)
    assert parse_model("runs:/abc123/best/model") == RunArtifact("abc123", "best/model")
    assert parse_model(str(tmp_path)) == tmp_path


@pytest.mark.parametrize(
    "model",
    ["", "en-de", "models:/en-de", "models:/en-de/latest", "models:/a@b/c", "runs:/x", "s3://x/y"],
)
def test_anything_else_is_told_the_four_forms(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError) as error:
        parse_model(model)
    for form in ("models:/NAME@ALIAS", "models:/NAME/VERSION", "runs:/RUN_ID/PATH", "folder"):
        assert form in str(error.value)
    assert repr(model) in str(error.value)


def test_a_folder_must_hold_a_model(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"model\.json is missing"):
        parse_model(str(tmp_path))


def test_a_missing_model_is_reported_before_anything_heavy_is_loaded(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom heliograph.pipeline.request.errors import RequestError\n"
        "from heliograph.pipeline.request.model_uri import check_model\n"
        "try: check_model('models:/en-de@champion')\n"
        "except RequestError as error: print(error)\n"
        "print([name for name in ('mlflow', 'torch', 'ray', 'numpy') if name in sys.modules])"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    message, heavy = done.stdout.splitlines()
    assert "'en-de' does not exist; there is none yet at sqlite:///" in message
    assert heavy == "[]"
    assert list(tmp_path.iterdir()) == [], "looking for a model must not make a store"


def test_what_it_cannot_read_it_leaves_to_mlflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other.db").write_bytes(b"of another kind")
    for uri in (f"sqlite:///{tmp_path / 'other.db'}", "http://127.0.0.1:9", "file:///nowhere"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        check_model("models:/en-de@champion")
