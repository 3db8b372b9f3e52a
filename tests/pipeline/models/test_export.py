"""Exports: the same translations by another engine, checked, sealed, and whole or absent."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from heliograph.pipeline.checkpoints.model_folder import load_model
from heliograph.pipeline.models.export import export_engine, export_marian
from heliograph.pipeline.registry.registry import fetch_model
from heliograph.pipeline.request.decoding import Decoding, Evaluate, Sampling
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.scoring.evaluate import write_evaluation_set
from heliograph.pipeline.translation.conversion import convert
from heliograph.pipeline.translation.engines import open_engine
from heliograph.pipeline.translation.exports import PRECISIONS, Precision, find_exports
from heliograph.pipeline.translation.fast_engine import FastTranslator
from heliograph.pipeline.translation.translate import Translator
from tests.pipeline.conftest import PAIRS, MakeModel
from tests.pipeline.model_store import Store
from tests.waiting import DEADLINE

ROOT = Path(__file__).parents[3]
SOURCES = [source for source, _ in PAIRS]
OTHERS = ["The old dog eats a tree.", "", " \t", "bark " * 30, "1 € 🙂", "\udc80 red"]


@pytest.fixture
def folder(make_model: MakeModel, tmp_path: Path) -> Path:
    """A checkpoint folder with an evaluation set."""
    folder = tmp_path / "model"
    shutil.copytree(make_model(1), folder)
    write_evaluation_set(folder, PAIRS)
    return folder


def test_an_exported_model_translates_as_torch_does(folder: Path) -> None:
    found = export_engine(str(folder), "ctranslate2", 0.3)
    assert (found["same"], found["sentences"]) == (1.0, len(PAIRS))
    assert found["score_difference"] < 1e-3
    assert find_exports(folder) == ["ctranslate2"]
    torch_, fast = Translator.load(folder, "cpu"), open_engine(folder, "ctranslate2")
    for settings in (
        Evaluate(),
        Evaluate(beam=1, length_penalty=0),
        Evaluate(beam=4, length_penalty=0.6, length_offset=5),
        Evaluate(beam=3, max_length_factor=0.5, max_length_extra=1, tokens_per_batch=20),
        Evaluate(beam=2, min_length_factor=1.5),
        Evaluate(beam=2, no_repeat_ngram=2),
    ):
        sentences = [*SOURCES, *OTHERS]
        assert fast.translate(sentences, settings) == torch_.translate(sentences, settings)


def test_an_exported_model_ranks_and_scores_as_torch_does(folder: Path) -> None:
    export_engine(str(folder), "ctranslate2", 0.3)
    torch_, fast = Translator.load(folder, "cpu"), open_engine(folder, "ctranslate2")
    for settings, prefixes in (
        (Decoding(beam=4, n_best=3, length_penalty=0.6), None),
        (Decoding(beam=4, n_best=3, length_penalty=0.6, length_offset=5), None),
        (Decoding(beam=4, n_best=2), ["Die "] * len(SOURCES)),
        (Decoding(sampling=Sampling(seed=3), n_best=2), None),
    ):
        expected = torch_.alternatives(SOURCES, settings, prefixes)
        for ours, theirs in zip(
            expected, fast.alternatives(SOURCES, settings, prefixes), strict=True
        ):
            assert [each.text for each in theirs] == [each.text for each in ours]
            scores = [each.score for each in ours]
            assert [each.score for each in theirs] == pytest.approx(scores, abs=1e-3)


@pytest.mark.parametrize("penalty", [{"length_penalty": 0.0}, {"length_offset": 5.0}])
def test_no_penalty_is_no_other_search(folder: Path, penalty: dict[str, float]) -> None:
    """To CTranslate2 it is: of 97 such sentences it then translated 7 otherwise."""
    export_engine(str(folder), "ctranslate2", 0.3)
    torch_, fast = Translator.load(folder, "cpu"), open_engine(folder, "ctranslate2")
    begun = [source[:end] for source in SOURCES for end in range(1, len(source), 2)]
    settings = Decoding(beam=4, **penalty)  # type: ignore[arg-type]
    assert fast.translate(begun, settings) == torch_.translate(begun, settings)


def test_a_search_that_comes_to_its_limit_ends_as_in_torch(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CTranslate2 cuts off there. Where that cannot matter torch does not search again."""
    export_engine(str(folder), "ctranslate2", 0.3)
    torch_, fast = Translator.load(folder, "cpu"), open_engine(folder, "ctranslate2")
    through_torch, to_their_limits = FastTranslator._through_torch, FastTranslator._to_their_limits
    sentences = [*SOURCES, *OTHERS, *(source[:-9] for source in SOURCES)]
    by_torch: list[str] = []
    at_the_limit: list[int] = []

    def count_torch(self: FastTranslator, sentences: list[str], *more: Any) -> Any:
        by_torch.extend(sentences)
        return through_torch(self, sentences, *more)

    def count_limits(self: FastTranslator, some: dict[int, list[int]], settings: Decoding) -> Any:
        at_the_limit.extend(some)
        return to_their_limits(self, some, settings)

    monkeypatch.setattr(FastTranslator, "_through_torch", count_torch)
    monkeypatch.setattr(FastTranslator, "_to_their_limits", count_limits)
    for extra in (2, 12, 20):
        for beam, n_best, penalty in ((5, 1, 1.0), (5, 2, 1.0), (3, 1, 0.0), (8, 3, 0.6)):
            limits = {"max_length_factor": 0.6, "max_length_extra": extra}
            settings = Decoding(beam=beam, n_best=n_best, length_penalty=penalty, **limits)
            expected = torch_.alternatives(sentences, settings)
            found = fast.alternatives(sentences, settings)
            for ours, theirs in zip(expected, found, strict=True):
                assert [each.text for each in theirs] == [each.text for each in ours]
                scores = [each.score for each in ours]
                assert [each.score for each in theirs] == pytest.approx(scores, abs=1e-3)
    assert 20 < len(by_torch) < len(at_the_limit) - 5, "some of them, not all"


def test_an_export_that_loses_too_much_is_not_added(
    make_model: MakeModel, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault: what is converted is another model."""
    from heliograph.pipeline.models import export

    monkeypatch.setattr(export, "load_model", lambda _: load_model(make_model(3, known=2)))
    for engine in ("ctranslate2", "ctranslate2-int8"):
        with pytest.raises(RequestError, match=r"was not added"):
            export_engine(str(folder), engine, 0.3)
    assert find_exports(folder) == []
    assert sorted(path.name for path in folder.iterdir()) == [
        "evaluation.parquet",
        "model.json",
        "model.safetensors",
        "tokenizer.json",
    ]


def test_int8_is_a_quarter_the_size(folder: Path) -> None:
    sizes = {
        name: export_engine(str(folder), name, 100.0)["bytes"]
        for name in ("ctranslate2", "ctranslate2-int8")
    }
    weights = (folder / "model.safetensors").stat().st_size
    assert sizes["ctranslate2-int8"] < sizes["ctranslate2"] - weights / 2
    assert len(open_engine(folder, "ctranslate2-int8").translate(SOURCES, Evaluate())) == len(PAIRS)


@pytest.mark.parametrize("precision", ["float32", "int8", "float16"])
def test_a_converted_model_stays_as_it_was(
    folder: Path, tmp_path: Path, precision: Precision
) -> None:
    """CTranslate2 quantizes in place."""
    model, tokenizer = load_model(folder)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    (tmp_path / "converted").mkdir()
    convert(model, tokenizer, tmp_path / "converted", precision)
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())


def test_float16_needs_a_gpu(folder: Path) -> None:
    import ctranslate2

    if ctranslate2.get_cuda_device_count():
        pytest.skip("there is a GPU, so that float16 can be computed")
    with pytest.raises(RequestError, match=r"float16, which needs a GPU; valid: ctranslate2, "):
        export_engine(str(folder), "ctranslate2-float16", 0.3)


def test_a_changed_export_is_refused(store: Store, make_model: MakeModel) -> None:
    store.register(make_model(1))
    assert export_engine("models:/tiny/1", "ctranslate2", 0.3)["added"]
    assert not export_engine("models:/tiny/1", "ctranslate2", 0.3)["added"]
    folder = Path(fetch_model("models:/tiny/1", "ctranslate2"))
    assert open_engine(folder, "ctranslate2").translate(SOURCES[:1], Evaluate()) == [PAIRS[0][1]]
    for file in ("model.bin", "config.json", "shared_vocabulary.json", "export.json"):
        path = folder / "ctranslate2" / file
        whole = path.read_bytes()
        path.write_bytes(whole.replace(b"1", b"2", 1))
        with pytest.raises(RequestError, match=f"not what was registered: ctranslate2/{file} was"):
            fetch_model("models:/tiny/1", "ctranslate2")
        path.write_bytes(whole)
    fetch_model("models:/tiny/1", "ctranslate2")
    shutil.copytree(folder / "ctranslate2", folder / "ctranslate2-int8")
    with pytest.raises(RequestError, match="not what was registered: ctranslate2-int8/export"):
        fetch_model("models:/tiny/1", "ctranslate2")
    fetch_model("models:/tiny/1")  # for torch, which uses none


EXPORT_AND_DIE = """
import os, sys
from heliograph.pipeline.models import export
from heliograph.pipeline.registry import versions
place, model = sys.argv[1:]
whole = getattr(versions, "_log_into_model")
def dying(client, version, name, files):
    sealing = [path.name for path in files] == ["export.json"]
    if place == "files":
        whole(client, version, name, files[:1])
        os._exit(9)
    if sealing:
        os._exit(9)
    whole(client, version, name, files)
versions._log_into_model = dying
export.export_engine(model, "ctranslate2", 0.3)
"""


@pytest.mark.parametrize("place", [pytest.param("files", marks=pytest.mark.faults), "seal"])
def test_killed_halfway_an_export_is_not_there(
    store: Store, make_model: MakeModel, place: str
) -> None:
    store.register(make_model(1))
    done = subprocess.run(
        [sys.executable, "-c", EXPORT_AND_DIE, place, "models:/tiny/1"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=DEADLINE,
    )
    assert done.returncode == 9
    folder = Path(fetch_model("models:/tiny/1"))
    assert (folder / "ctranslate2").is_dir(), "some of it was written"
    with pytest.raises(RequestError, match=r"has no export 'ctranslate2' \(it has none\)"):
        open_engine(folder, "ctranslate2")
    assert export_engine("models:/tiny/1", "ctranslate2", 0.3)["added"], "the next one is whole"
    open_engine(fetch_model("models:/tiny/1"), "ctranslate2")


def test_a_run_s_model_takes_no_export(store: Store, make_model: MakeModel) -> None:
    store.register(make_model(1))
    with pytest.raises(RequestError, match="to which nothing is added"):
        export_engine(f"runs:/{store.run_id}/tiny", "ctranslate2", 0.3)


def test_without_an_evaluation_set_nothing_is_exported(make_model: MakeModel) -> None:
    for engine in (name for name in PRECISIONS if name != "ctranslate2-float16"):
        with pytest.raises(RequestError, match="has no pinned evaluation set"):
            export_engine(str(make_model(1)), engine, 0.3)


def test_marian_is_the_same_function(folder: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    found = export_marian(str(folder), str(tmp_path / "marian"))
    assert found["logit_difference"] < 1e-4
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "marian")
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "marian")
    batch = tokenizer([*SOURCES, "<s> is text"], return_tensors="pt", padding=True)
    assert (batch["input_ids"][:, 1:] != 1).all(), "a literal <s> is no start token"
    texts = tokenizer.batch_decode(model.generate(**batch), skip_special_tokens=True)
    assert texts[: len(SOURCES)] == [target for _, target in PAIRS]
    with pytest.raises(RequestError, match="exists already"):
        export_marian(str(folder), str(tmp_path / "marian"))
