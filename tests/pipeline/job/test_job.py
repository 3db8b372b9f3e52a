"""A job's run, whatever the tracking server does meanwhile."""

import json
import threading
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from heliograph.pipeline.corpus.mixture import Mixture
from heliograph.pipeline.job import job as job_module
from heliograph.pipeline.job.job import RESULT_TAG, _decided, _tracked
from heliograph.pipeline.promotion.decision import Decision
from heliograph.pipeline.request import recipe
from heliograph.pipeline.request.recipe_file import parse_recipe
from heliograph.pipeline.steps.prepare import Prepared
from heliograph.pipeline.steps.tokenizer import train_tokenizer
from heliograph.pipeline.tracking.server import open_client
from tests.pipeline.pairs import PAIRS
from tests.pipeline.small_corpus import write_corpus
from tests.tracking_server import Door, MlflowServer, Mode
from tests.waiting import wait_until


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    train, validation = (
        write_corpus(tmp_path / name, PAIRS * 20, 10) for name in ("train", "validation")
    )
    texts = Mixture((train,), (1.0,))
    tokenizer = train_tokenizer(texts, recipe.Tokenizer(vocabulary_size=300), str(tmp_path), None)
    return Prepared(texts, validation, None, tokenizer, None)


def test_the_gate_s_decision_is_kept_though_the_server_goes_away_after_it(
    server: MlflowServer, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next start would ask again, and learn that the version is the champion already."""
    data = {"train": "a", "validation": "b"}
    asked = parse_recipe({"name": "decided", "data": data, "train": {"steps": 1}})
    asked = asked.model_copy(
        update={"registry": asked.registry.model_copy(update={"promote": True})}
    )
    client = open_client(door.url)
    run_id = client.create_run("0").info.run_id
    back = threading.Timer(1.5, lambda: setattr(door, "mode", "open"))

    def promote(*_: object) -> Decision:
        door.mode = "refuses"
        back.start()
        return Decision(True, "the first", 1, None, 1, [])

    monkeypatch.setattr(job_module, "promote", promote)
    result = {"run_id": run_id, "model": {"name": "decided", "version": 1}}
    decided = _decided(client, asked, result)
    assert decided["decision"]["promoted"]
    kept = MlflowClient(server.url).get_run(run_id).data.tags[RESULT_TAG]
    assert json.loads(kept) == decided
    assert _decided(client, asked, json.loads(kept)) == decided  # and does not ask again


@pytest.mark.parametrize("mode", ["refuses", "fails_after"])
def test_a_server_that_goes_away_while_the_run_is_opened_is_waited_for(
    server: MlflowServer,
    door: Door,
    prepared: Prepared,
    capsys: pytest.CaptureFixture[str],
    mode: Mode,
) -> None:
    """A job whose data had taken hours to prepare was lost by one answer that did not come."""
    data = {"train": "a", "validation": "b"}
    job = parse_recipe({"name": f"opened-{mode}", "data": data, "train": {"steps": 1}})
    client = open_client(door.url)
    client.search_experiments()
    for after in range(0, 12, 3):
        door.change_after(after, mode, seconds=1.5)
        with _tracked(client, job.name, job, prepared, "job") as run_id:
            wait_until(lambda: door.open_again)
    assert "the tracking server does not answer; trying for" in capsys.readouterr().err
    found = MlflowClient(server.url)
    experiment = found.get_experiment_by_name(job.name)
    assert experiment is not None
    (run,) = found.search_runs([experiment.experiment_id])
    assert (run.info.run_id, run.info.status) == (run_id, "FINISHED")
    assert run.data.params["train.steps"] == "1"
    assert len(run.inputs.dataset_inputs) == 2
    paths = {entry.path for entry in found.list_artifacts(run_id)}
    assert paths == {"recipe.yaml", "tokenizer.json"}
