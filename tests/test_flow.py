"""The whole way on real processes: recipe, corpus, tokenizer, two DDP workers, MLflow, registry.

One small job is run once for the whole module and looked at from all sides.
"""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import mlflow
import pytest
from huggingface_hub import ModelCard
from mlflow.tracking import MlflowClient
from typer.testing import CliRunner

import heliograph
from heliograph.jobs.command import application
from heliograph.jobs.promote import promote
from heliograph.pipeline.models.lineage import descend, trace
from heliograph.pipeline.promotion.promote import history
from heliograph.pipeline.registry.registry import fetch_model
from heliograph.pipeline.request.recipe import Recipe
from heliograph.pipeline.sources.embedded.grammar import pairs
from tests.small_job import small_recipe, write_somebody_s_project
from tests.waiting import DEADLINE

STEPS = 12


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder with its own tracking store."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        yield folder


def flow_recipe(folder: Path, **sections: Any) -> Recipe:
    """With a test set that is kept apart."""
    lines = [json.dumps({"en": source, "de": target}) for source, target in pairs("test")[:30]]
    (folder / "test.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return small_recipe(folder, data={"test": str(folder / "test.jsonl")}, **sections)


@pytest.fixture(scope="module")
def unpromoted(home: Path, ray_cluster: None) -> dict[str, Any]:
    return heliograph.train(flow_recipe(home, registry={"promote": False}))


@pytest.fixture(scope="module")
def job(home: Path, unpromoted: dict[str, Any]) -> dict[str, Any]:
    """The same job, finished already, asked once more and for promotion, too."""
    return heliograph.train(flow_recipe(home))


@pytest.fixture
def client(job: dict[str, Any]) -> MlflowClient:
    return MlflowClient(mlflow.get_tracking_uri())


def test_the_result_says_what_scripts_need(job: dict[str, Any]) -> None:
    assert job["steps"] == STEPS
    assert job["model"] == {"name": "small", "version": 1, "uri": "models:/small/1"}
    assert set(job["metrics"]) >= {
        "test/bleu",
        "test/chrf",
        "valid/loss",
        "train/target_tokens_per_second",
        "train/padding",
        "train/data_wait",
    }
    assert 0 <= job["metrics"]["train/padding"] < 0.2
    assert Path(job["checkpoint"], "model.safetensors").is_file()


def test_every_step_is_logged_once(job: dict[str, Any], client: MlflowClient) -> None:
    for key in ("train/loss", "train/learning_rate", "train/gradient_norm", "train/data_wait"):
        history = client.get_metric_history(job["run_id"], key)
        assert [metric.step for metric in history] == list(range(1, STEPS + 1)), key
    history = client.get_metric_history(job["run_id"], "valid/bleu")
    assert [metric.step for metric in history] == [6, 12]


def test_the_loss_falls(job: dict[str, Any], client: MlflowClient) -> None:
    loss = [metric.value for metric in client.get_metric_history(job["run_id"], "train/loss")]
    assert loss[-1] < loss[0] - 0.5


def test_the_run_holds_recipe_data_tokenizer_and_pictures(
    job: dict[str, Any], client: MlflowClient
) -> None:
    run = client.get_run(job["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.params["model.width"] == "32"
    assert run.data.params["train.clip_norm"] == "1.0"  # defaults are recorded too
    assert run.data.params["corpus.train.rows"] == "600"
    assert run.data.params["corpus.train.digest"]
    contexts = {item.tags[0].value for item in run.inputs.dataset_inputs}
    assert contexts == {"train", "validation", "test"}
    assert run.inputs.dataset_inputs[0].dataset.digest
    paths = {entry.path for entry in client.list_artifacts(job["run_id"])}
    assert {"recipe.yaml", "tokenizer.json", "curves.png", "samples.json", "attention"} <= paths
    pictures = client.list_artifacts(job["run_id"], "attention/sentence-1")
    assert [entry.path for entry in pictures] == ["attention/sentence-1/layer-1.png"]


def test_system_metrics_carry_the_nodes_name(job: dict[str, Any], client: MlflowClient) -> None:
    keys = client.get_run(job["run_id"]).data.metrics
    assert f"system/{socket.gethostname()}/cpu_utilization_percentage" in keys


def test_a_finished_job_that_is_to_be_promoted_is_judged_once(
    unpromoted: dict[str, Any], job: dict[str, Any], home: Path
) -> None:
    """It was finished already and nothing else happened (issue 17, point 2)."""
    assert "decision" not in unpromoted
    decision = {"promoted": True, "reason": ANY, "champion": 1, "previous": None, "number": 1}
    assert job == {**unpromoted, "decision": decision}
    assert job["decision"]["reason"].startswith("version 1 becomes the first champion")
    assert heliograph.train(flow_recipe(home)) == job
    assert [record.number for record in history("small")] == [1]


def test_python_s_way_in_is_that_of_the_commands(job: dict[str, Any]) -> None:
    scores = heliograph.evaluate("models:/small@champion")
    assert scores["bleu"] == job["metrics"]["test/bleu"]
    sentences = ["The dog sleeps.", "", "A small man laughs."]
    model = heliograph.load_model("models:/small/1", decoding=["beam=3", "n_best=2"])
    assert [len(found) for found in model.alternatives(sentences)] == [2, 0, 2]
    assert heliograph.translate("models:/small/1", sentences, decoding=["beam=3"]) == (
        model.translate(sentences)
    )
    assert heliograph.promote("small", dry_run=True).reason == "version 1 is the champion already"


def test_a_process_with_only_the_registry_reproduces_the_score(
    job: dict[str, Any], tmp_path: Path
) -> None:
    """In a folder of somebody's own project, too (issue 16, 4)."""
    write_somebody_s_project(tmp_path, "tokenizers", "datasets")
    heliograph_command = str(Path(sys.executable).parent / "heliograph")
    command = [heliograph_command, "evaluate", "models:/small@champion", "--json"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE, check=True
    )
    scores = json.loads(done.stdout.splitlines()[-1])
    assert scores["sentences"] == 30
    assert scores["bleu"] == job["metrics"]["test/bleu"]
    assert scores["chrf"] == job["metrics"]["test/chrf"]


def test_lines_in_are_lines_out(job: dict[str, Any], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "heliograph.jobs.translate", "models:/small@champion"]
    text = "The dog sleeps.\n\n  \nA small man laughs."
    done = subprocess.run(
        command,
        cwd=tmp_path,
        input=text,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=True,
    )
    _, empty, blank, _ = done.stdout.splitlines()
    assert (empty, blank) == ("", "")


@pytest.mark.usefixtures("job")
def test_the_champion_is_not_promoted_again() -> None:
    done = CliRunner().invoke(application(promote), ["small", "--json"])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "promoted": False,
        "reason": "version 1 is the champion already",
        "champion": 1,
        "previous": 1,
        "number": None,
        "verdicts": [],
    }


def test_the_version_says_what_it_was_made_from(
    job: dict[str, Any], client: MlflowClient, tmp_path: Path
) -> None:
    run = client.get_run(job["run_id"])
    digests = [run.data.params[f"corpus.{use}.digest"] for use in ("train", "test", "validation")]
    found = trace("models:/small@champion")
    data = [(each.context, each.digest, each.rows) for each in found.provenance.data]
    assert data == list(zip(("train", "test", "validation"), digests, (600, 30, 40), strict=True))
    tokenizer = client.download_artifacts(job["run_id"], "tokenizer.json", str(tmp_path))
    assert found.provenance.tokenizer == sha256(Path(tokenizer).read_bytes()).hexdigest()
    assert found.run is not None
    assert (found.run.id, found.run.status) == (job["run_id"], "FINISHED")
    assert found.promotion is not None
    assert [(use.name, use.version) for use in descend(digests[0][:12]).uses] == [("small", 1)]


def test_the_version_has_its_model_card(job: dict[str, Any], client: MlflowClient) -> None:
    version = client.get_model_version("small", "1")
    card = ModelCard.load(Path(fetch_model("models:/small/1"), "README.md"))
    bleu, chrf = card.data.eval_results or []
    assert bleu.metric_value == job["metrics"]["test/bleu"]
    assert chrf.metric_value == job["metrics"]["test/chrf"]
    assert "30 pairs of the test set" in card.text
    assert "Another set, the validation set, chose the weights" in card.text
    facts = [f"step {int(job['checkpoint'][-8:])} |", "| optimizer steps | 12 |", "600 | none |"]
    facts += [version.tags["heliograph.signatures"].split('"')[3].replace("|", "\\|")]
    for fact in facts:
        assert fact in card.text
        assert fact in version.description
    assert "heliograph translate models:/small/1" in version.description


def test_nothing_stored_is_a_pickle(job: dict[str, Any], home: Path) -> None:
    files = [path for path in home.rglob("*") if path.is_file() and "/ray/" not in str(path)]
    assert any(path.suffix == ".safetensors" for path in files)
    for path in files:
        assert path.suffix not in {".pkl", ".pt", ".pth", ".bin"}, path
        head = path.read_bytes()[:2]
        assert head[:1] != b"\x80", f"{path} begins as a pickle does"
        assert head != b"PK", f"{path} is an archive, as torch.save writes"
