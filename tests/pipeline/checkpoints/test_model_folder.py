import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from heliograph.pipeline.checkpoints.model_folder import (
    load_model,
    read_max_characters,
    read_settings,
    save_model,
)
from heliograph.pipeline.request.decoding import Evaluate
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.steps.tokenizer import Tokenizer
from tests.pipeline.conftest import PAIRS, MakeModel


def test_a_model_comes_back_as_it_was(
    make_model: MakeModel, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model, tokenizer = load_model(make_model(1))
    save_model(tmp_path / "again", model.train(), tokenizer)
    again, tokenizer = load_model(tmp_path / "again")

    assert again.config == model.config
    assert not again.training
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name)), name
    assert tokenizer.encode_batch([PAIRS[0][0]]) == tiny_tokenizer.encode_batch([PAIRS[0][0]])
    names = sorted(path.name for path in (tmp_path / "again").iterdir())
    assert names == ["model.json", "model.safetensors", "tokenizer.json"]


def test_tied_weights_are_stored_once(make_model: MakeModel) -> None:
    model, _ = load_model(make_model(1))
    stored = load_file(make_model(1) / "model.safetensors")
    assert sum(tensor.numel() for tensor in stored.values()) == sum(
        parameter.numel() for parameter in model.parameters()
    )


def copy_of(folder: Path, tmp_path: Path) -> Path:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


@pytest.mark.parametrize("name", ["model.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_or_damaged_file_is_named(
    make_model: MakeModel, tmp_path: Path, name: str
) -> None:
    path = copy_of(make_model(1), tmp_path) / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RequestError, match="no usable"):
        load_model(tmp_path)
    path.unlink()
    with pytest.raises(RequestError, match=f"{name} is missing"):
        load_model(tmp_path)


def test_weights_of_other_sizes_are_refused(make_model: MakeModel, tmp_path: Path) -> None:
    path = copy_of(make_model(1), tmp_path) / "model.json"
    sizes = json.loads(path.read_text())
    for change, message in [({"width": 64}, "is \\["), ({"decoder_layers": 1}, "on one side only")]:
        path.write_text(json.dumps(sizes | change))
        with pytest.raises(RequestError, match=f"weights and sizes do not fit.*{message}"):
            load_model(tmp_path)


def test_settings_are_the_recipe_s(tmp_path: Path) -> None:
    assert read_settings(tmp_path) == Evaluate()
    (tmp_path / "recipe.yaml").write_text(
        "{name: x, data: {train: a, validation: b}, train: {steps: 1}, evaluate: {beam: 3}}"
    )
    assert read_settings(tmp_path) == Evaluate(beam=3)
    # Of another release's recipe only what decoding needs is read (issue 17, 6).
    (tmp_path / "recipe.yaml").write_text(
        "gone: {one: 1}\ndata: {max_characters: 70, other: x}\ntrain: 7\nevaluate: {beam: 2}\n"
    )
    assert read_settings(tmp_path) == Evaluate(beam=2)
    assert read_max_characters(tmp_path) == 70
