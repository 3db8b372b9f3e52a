"""A champion where there is nothing but what it asks for itself."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from heliograph.pipeline.promotion.promote import promote
from heliograph.pipeline.scoring.evaluate import score
from tests.pipeline.conftest import PAIRS, MakeModel
from tests.pipeline.model_store import Store

TRANSLATE = """
import importlib.util, json, mlflow
before = importlib.util.find_spec("heliograph")
model = mlflow.pyfunc.load_model("models:/tiny@champion")
print(json.dumps({
    "translations": list(model.predict(json.loads(input()))),
    "there": [name for name in ("heliograph.jobs", "ray") if importlib.util.find_spec(name)],
    "installed": before is not None,
    "code": importlib.util.find_spec("heliograph").origin,
}))
"""


def run(*command: str | Path, folder: Path, input: str = "") -> subprocess.CompletedProcess[str]:
    kept = {"PATH", "HOME", "MLFLOW_TRACKING_URI", "TMPDIR"}
    environment = {
        key: value for key, value in os.environ.items() if key in kept or key.startswith("PIP_")
    }
    return subprocess.run(
        command, cwd=folder, env=environment, input=input, capture_output=True, text=True
    )


@pytest.mark.faults
@pytest.mark.timeout(1800)  # it installs torch and MLflow
def test_the_champion_scores_in_a_fresh_environment_what_was_recorded(
    store: Store, make_model: MakeModel, tmp_path: Path
) -> None:
    version = store.register(make_model(3, known=4))
    promote("tiny")
    requirements = mlflow.pyfunc.get_model_dependencies("models:/tiny@champion")

    empty = tmp_path / "empty"
    empty.mkdir()
    run(sys.executable, "-m", "venv", "--without-pip", "fresh", folder=empty)
    python = empty / "fresh" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", f"--python={python}", "install", "--quiet"]
    pip += ["--no-compile"]  # thousands of files, of which few are imported
    (torch,) = (
        line for line in Path(requirements).read_text().split() if line.startswith("torch=")
    )
    run(*pip, f"{torch}+cpu", folder=empty)  # as in the Makefile: else gigabytes, for a GPU
    installed = run(*pip, "-r", requirements, folder=empty)
    assert installed.returncode == 0, installed.stderr

    sources = json.dumps([source for source, _ in PAIRS])
    found = run(python, "-c", TRANSLATE, folder=empty, input=sources)
    assert found.returncode == 0, found.stderr
    answer = json.loads(found.stdout.splitlines()[-1])
    assert (answer["there"], answer["installed"]) == ([], False)
    assert "/artifacts/code/heliograph/" in answer["code"]  # the version brings its own
    scores, tags = (
        score(answer["translations"], [target for _, target in PAIRS]),
        store.tags(version),
    )
    assert repr(scores.bleu) == tags["heliograph.bleu"]
    assert repr(scores.chrf) == tags["heliograph.chrf"]
    assert 0 < scores.bleu < 100
