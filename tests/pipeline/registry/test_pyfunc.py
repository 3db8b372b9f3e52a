"""A registered model as MLflow runs it: what `predict` takes, what its scoring server answers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import torch
from fastapi.testclient import TestClient
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.scoring_server import init

from heliograph.pipeline.models.export import export_engine
from tests.pipeline.conftest import PAIRS, MakeModel
from tests.pipeline.model_store import Store

SOURCES = [source for source, _ in PAIRS]
TARGETS = [target for _, target in PAIRS]


@pytest.fixture(scope="module")
def model(
    make_model: MakeModel, empty_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """A version with an export, loaded by MLflow."""
    torch.set_num_threads(1)  # as `one_thread` does it for a test
    folder = tmp_path_factory.mktemp("pyfunc")
    (folder / "mlflow.db").write_bytes(empty_store.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        Store(folder).register(make_model(1))
        export_engine("models:/tiny/1", "ctranslate2", 0.3)
        yield mlflow.pyfunc.load_model("models:/tiny/1")


@pytest.mark.parametrize(
    "given",
    [
        SOURCES,
        pd.DataFrame({"source": SOURCES}),
        pd.DataFrame({"text": SOURCES}),
        pd.DataFrame({"source": SOURCES, "id": range(len(SOURCES))}),
        pd.Series(SOURCES),
    ],
)
def test_sentences_come_in_many_forms(model: Any, given: Any) -> None:
    assert list(model.predict(given)) == TARGETS


def test_one_sentence_may_come_alone(model: Any) -> None:
    assert list(model.predict(SOURCES[0])) == TARGETS[:1]


def test_params_choose_engine_beam_and_alternatives(model: Any) -> None:
    fast = {"engine": "ctranslate2", "beam": 4, "n_best": 3}
    for found, target in zip(model.predict(SOURCES, params=fast), TARGETS, strict=True):
        assert [sorted(each) for each in found] == [["score", "text"]] * 3
        assert found[0]["text"] == target
        assert found[0]["score"] >= found[1]["score"] >= found[2]["score"]
    assert list(model.predict(SOURCES, params={"engine": "ctranslate2"})) == TARGETS


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"engine": "ctranslate3"}, "did you mean 'ctranslate2'"),
        ({"engine": "ctranslate2-int8"}, "has no export 'ctranslate2-int8'"),
        ({"engine": "../../ctranslate2"}, "is not known"),
        ({"beam": 0}, "greater than or equal to 1"),
        ({"n_best": 9}, "n_best 9 must be at most beam"),
    ],
)
def test_wrong_params_are_said(model: Any, params: dict[str, Any], message: str) -> None:
    with pytest.raises(MlflowException, match=message) as raised:
        model.predict(SOURCES, params=params)
    assert raised.value.error_code == "INVALID_PARAMETER_VALUE"


def test_a_sentence_that_is_too_long_is_refused(model: Any) -> None:
    with pytest.raises(MlflowException, match="sentence 1 has 1,000,000 characters") as raised:
        model.predict([SOURCES[0], "x" * 1_000_000])
    assert raised.value.error_code == "INVALID_PARAMETER_VALUE"


@pytest.fixture(scope="module")
def server(model: Any) -> TestClient:
    """What `mlflow models serve` runs."""
    return TestClient(init(model))


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": SOURCES},
        {"instances": SOURCES},
        {"dataframe_split": {"columns": ["source"], "data": [[source] for source in SOURCES]}},
        {"dataframe_records": [{"source": source} for source in SOURCES]},
        {"inputs": SOURCES, "params": {"engine": "ctranslate2"}},
    ],
)
def test_mlflow_s_server_answers(server: TestClient, body: dict[str, Any]) -> None:
    answer = server.post("/invocations", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"predictions": TARGETS}


def test_mlflow_s_server_says_what_was_wrong(server: TestClient) -> None:
    body = {"inputs": SOURCES, "params": {"engine": "ctranslate2-int8"}}
    answer = server.post("/invocations", json=body)
    assert answer.status_code == 400, answer.text
    assert "heliograph export" in json.loads(answer.text)["message"]
