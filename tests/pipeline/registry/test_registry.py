import ast
import json
import os
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from heliograph.pipeline.promotion.promote import promote
from heliograph.pipeline.registry.registry import fetch_model
from heliograph.pipeline.request.decoding import Evaluate
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.scoring.evaluate import evaluate
from heliograph.pipeline.translation.translate import Translator
from tests.pipeline.conftest import PAIRS, MakeModel
from tests.pipeline.model_store import SETTINGS, Store
from tests.small_job import write_somebody_s_project
from tests.waiting import DEADLINE

ROOT = Path(__file__).parents[3]
SOURCES = [source for source, _ in PAIRS]


def run_python(script: str, folder: Path, *arguments: str, **variables: str) -> str:
    """What a fresh process prints that was started in `folder`."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": "", **variables},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


# --- register -----------------------------------------------------------------------------------


def test_a_version_says_what_it_is(store: Store, make_model: MakeModel) -> None:
    number = store.register(make_model(3, known=4))
    version = store.client.get_model_version("tiny", str(number))
    scores = evaluate(Translator.load(make_model(3, known=4)), PAIRS, SETTINGS)

    assert (number, store.alias("challenger"), version.run_id) == (1, 1, store.run_id)
    assert float(version.tags["heliograph.bleu"]) == scores.bleu
    assert float(version.tags["heliograph.chrf"]) == scores.chrf
    assert json.loads(version.tags["heliograph.signatures"]) == scores.signatures
    assert json.loads(version.tags["heliograph.evaluation.settings"]) == SETTINGS.model_dump()
    assert sorted(json.loads(version.tags["heliograph.checksums"])) == [
        "evaluation.parquet",
        "model.json",
        "model.safetensors",
        "recipe.yaml",
        "tokenizer.json",
    ]
    run = store.client.get_run(store.run_id)
    assert run.info.status == "RUNNING", "registering must not end the job's run"
    [output] = run.outputs.model_outputs
    assert version.source == f"models:/{output.model_id}"


def test_no_stored_file_is_a_pickle(store: Store, make_model: MakeModel) -> None:
    store.register(make_model(3, known=4))
    files = [path for path in (store.folder / "artifacts").rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"MLmodel", "model.safetensors", "pyfunc.py"}
    for path in files:
        assert path.suffix not in {".pkl", ".pickle", ".pt", ".pth", ".bin", ".joblib", ".npy"}
        head = path.read_bytes()[:2]
        # How pickles of protocol 2 and later begin, and archives that may hold one.
        assert head[:1] != b"\x80", path
        assert head != b"PK", path


def test_the_same_weights_of_a_run_are_one_version(store: Store, make_model: MakeModel) -> None:
    assert store.register(make_model(3, known=4)) == 1
    assert store.register(make_model(1)) == 2
    assert store.register(make_model(3, known=4)) == 1
    assert store.alias("challenger") == 2, "the newest candidate stays the challenger"
    store.client.delete_registered_model_alias("tiny", "challenger")
    assert store.register(make_model(1)) == 2
    assert store.alias("challenger") == 2, "as after a crash before the alias was set"
    store.run_id = store.client.create_run(store.experiment).info.run_id
    assert store.register(make_model(1)) == 3, "another run may come to the same weights"


LOAD_PYFUNC = """
import json, sys
import mlflow
model = mlflow.pyfunc.load_model("models:/tiny/1")
sources = json.loads(sys.argv[1])
print(json.dumps({
    "all": model.predict(sources),
    "one": model.predict(sources[:1], params={"beam": 1, "max_length_extra": 0}),
    "code": [
        module.__file__
        for name, module in sys.modules.items()
        if name.startswith("heliograph.")
    ],
    "heavy": [name for name in ("ray", "datasets") if name in sys.modules],
    "inputs": model.metadata.signature.inputs.to_dict(),
    "parameters": model.metadata.signature.params.to_dict(),
    "example": model.input_example.tolist() if hasattr(model.input_example, "tolist")
        else list(model.input_example),
    "requirements": open(mlflow.pyfunc.get_model_dependencies("models:/tiny/1")).read().split(),
}))
"""


def test_a_version_runs_where_heliograph_is_not(store: Store, make_model: MakeModel) -> None:
    store.register(make_model(3, known=4))
    empty = store.folder / "empty"
    empty.mkdir()
    write_somebody_s_project(empty)
    found = json.loads(run_python(LOAD_PYFUNC, empty, json.dumps(SOURCES)))

    here = Translator.load(make_model(3, known=4), "cpu")
    assert found["all"] == here.translate(SOURCES, SETTINGS)
    assert found["one"] == here.translate(SOURCES[:1], Evaluate(beam=1, max_length_extra=0))
    assert "translate.py" in {Path(file).name for file in found["code"]}
    assert all(Path(file).is_relative_to(store.folder / "artifacts") for file in found["code"])
    assert found["heavy"] == []
    assert [column["type"] for column in found["inputs"]] == ["string"]
    asked = SETTINGS.model_dump(exclude={"tokenize"}) | {"n_best": 1, "engine": "torch"}
    assert {p["name"]: p["default"] for p in found["parameters"]} == asked
    assert found["example"]
    assert all("==" in line and "+" not in line for line in found["requirements"])
    assert imported(found["code"]) <= {line.split("==")[0] for line in found["requirements"]}


def imported(files: list[str]) -> set[str]:
    """The distributions that files import when they are imported themselves."""
    distributions, names = packages_distributions(), set()
    for file in files:
        for node in ast.parse(Path(file).read_text()).body:
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add((node.module or "").split(".")[0])
    names.discard("heliograph")
    return {distributions[name][0] for name in names if name in distributions}


SCORE_CHAMPION = """
from heliograph.pipeline.scoring.evaluate import evaluate, read_evaluation_set
from heliograph.pipeline.checkpoints.model_folder import read_settings
from heliograph.pipeline.registry.registry import fetch_model
from heliograph.pipeline.translation.translate import Translator
folder = fetch_model("models:/tiny@champion")
scores = evaluate(Translator.load(folder), read_evaluation_set(folder), read_settings(folder))
print(repr(scores.bleu), repr(scores.chrf))
"""


def test_the_champion_scores_in_any_process_what_was_recorded(
    store: Store, make_model: MakeModel
) -> None:
    store.register(make_model(3, known=4))
    promote("tiny")
    tags = store.tags(1)
    found = run_python(SCORE_CHAMPION, store.folder, PYTHONPATH=str(ROOT))
    assert found == f"{tags['heliograph.bleu']} {tags['heliograph.chrf']}"
    assert 0 < float(tags["heliograph.bleu"]) < 100


# --- fetch --------------------------------------------------------------------------------------


def test_all_forms_of_a_model_are_fetched(store: Store, make_model: MakeModel) -> None:
    store.register(make_model(3, known=4))
    store.client.log_artifacts(store.run_id, str(make_model(3, known=4)), "best")
    weights = (make_model(3, known=4) / "model.safetensors").read_bytes()
    for model in (
        "models:/tiny/1",
        "models:/tiny@challenger",
        f"runs:/{store.run_id}/best",
        f"runs:/{store.run_id}/tiny",  # the model that the run logged
        str(make_model(3, known=4)),
    ):
        assert (Path(fetch_model(model)) / "model.safetensors").read_bytes() == weights, model


@pytest.mark.parametrize("file", ["model.safetensors", "evaluation.parquet", "model.json"])
def test_a_version_that_was_changed_is_refused(
    store: Store, make_model: MakeModel, file: str
) -> None:
    store.register(make_model(3, known=4))
    path = Path(fetch_model("models:/tiny/1")) / file
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(RequestError, match=f"not what was registered: {file} was changed"):
        fetch_model("models:/tiny/1")
    path.unlink()
    with pytest.raises(RequestError):
        fetch_model("models:/tiny/1")


def test_what_is_not_there_is_said(store: Store, make_model: MakeModel) -> None:
    store.register(make_model(3, known=4))
    for model, message in {
        "models:/tini@champion": "did you mean 'tiny'",
        "models:/tiny@champion": "no alias 'champion'; valid: challenger",
        "models:/tiny/2": "no version '2'; valid: 1",
        f"runs:/{'0' * 32}/best": "cannot be read",
        f"runs:/{store.run_id}/nothing": "cannot be read",
    }.items():
        with pytest.raises(RequestError, match=message):
            fetch_model(model)


def test_a_server_that_is_away_is_reported(tmp_path: Path) -> None:
    script = (
        "from heliograph.pipeline.request.errors import RequestError\n"
        "from heliograph.pipeline.promotion.promote import promote\n"
        "try: promote('tiny')\nexcept RequestError as error: print(error)"
    )
    message = run_python(
        script, tmp_path, PYTHONPATH=str(ROOT), MLFLOW_TRACKING_URI="http://127.0.0.1:9"
    )
    assert "'http://127.0.0.1:9' does not answer" in message
    assert "MLFLOW_TRACKING_URI" in message
