"""Models that an actor of the cluster runs for a driver."""

import os
import signal
from pathlib import Path

import pytest
import ray

from heliograph.pipeline.request.decoding import Decoding, Evaluate
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.translation.translate import Translator
from heliograph.pipeline.translation.workplace import Workplace
from tests.pipeline.conftest import PAIRS, MakeModel

SOURCES = [source for source, _ in PAIRS]


@pytest.fixture
def joined(ray_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)


def test_without_a_cluster_models_are_in_this_process(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert isinstance(Workplace().open(make_model(1)), Translator)


def test_an_actor_translates_the_same(
    joined: None, make_model: MakeModel, capsys: pytest.CaptureFixture[str]
) -> None:
    """Several models, each with all that it is asked for."""
    workplace = Workplace()
    settings = Decoding(beam=2, n_best=2)
    for folder in (make_model(1), make_model(3, known=4)):
        here, elsewhere = Translator.load(folder, "cpu"), workplace.open(folder)
        assert not isinstance(elsewhere, Translator)
        assert elsewhere.alternatives(SOURCES, settings) == here.alternatives(SOURCES, settings)
        prefixes = ["Der"] * len(SOURCES)
        found = elsewhere.alternatives(SOURCES, settings, prefixes)
        assert found == here.alternatives(SOURCES, settings, prefixes)
    assert workplace.device == "cpu"
    assert capsys.readouterr().err == "translating on a node of the cluster, with 2 CPUs\n"


def test_what_was_opened_is_opened_again_after_the_actor_s_death(
    joined: None, make_model: MakeModel
) -> None:
    workplace = Workplace()
    model = workplace.open(make_model(1))
    before = model.translate(SOURCES, Evaluate(beam=2))
    process = ray.get(workplace._actor.__ray_call__.remote(lambda _: os.getpid()))
    os.kill(process, signal.SIGKILL)
    assert model.translate(SOURCES, Evaluate(beam=2)) == before == [target for _, target in PAIRS]


def test_what_is_wrong_with_a_model_is_said(joined: None, make_model: MakeModel) -> None:
    workplace = Workplace()  # one, for its actor takes both CPUs
    model = workplace.open(make_model(1), "ctranslate2")
    with pytest.raises(RequestError, match="the model has no export 'ctranslate2'"):
        model.translate(SOURCES, Evaluate())
    empty = Path(make_model(1), "nothing")
    empty.mkdir(exist_ok=True)
    with pytest.raises(RequestError, match=r"is not a model folder: model\.json is missing"):
        workplace.open(empty).translate(SOURCES, Evaluate())
