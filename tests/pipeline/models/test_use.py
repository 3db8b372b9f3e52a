"""Finished models at work: on which data, and on which sentences."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import heliograph
from heliograph.pipeline.bulk import dataset
from heliograph.pipeline.models import use
from heliograph.pipeline.request.data import Data
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.request.recipe import Recipe
from tests.pipeline.conftest import PAIRS, MakeModel

PART = {"configuration": "de-en", "revision": "3fa2"}


@pytest.mark.parametrize(
    ("module", "ask"),
    [
        (use, lambda model, _: heliograph.evaluate(model, "wmt/wmt14", "en", "de", **PART)),
        (
            use,
            lambda *_: use.pin_evaluation_set(
                "m", "s", Data.only("wmt/wmt14", "en", "de", "test", **PART)
            ),
        ),
        (
            dataset,
            lambda model, output: heliograph.translate_dataset(
                model, "wmt/wmt14", output, "en", **PART
            ),
        ),
    ],
    ids=["evaluate", "pin", "translate"],
)
def test_a_hub_data_set_is_read_in_its_configuration_and_revision(
    module: Any,
    ask: Callable[[str, str], object],
    make_model: MakeModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """wmt14 has five configurations: base.yaml's own test set could not be scored (issue 17, 8)."""
    asked = []

    def find(location: object, data: Data, split: str) -> None:
        asked.append(data)
        raise RequestError(f"no {location} {split}")

    monkeypatch.setattr(module, "find_source", find)
    with pytest.raises(RequestError, match="no wmt/wmt14"):
        ask(str(make_model(1)), str(tmp_path / "out"))
    assert [(data.configuration, data.revision) for data in asked] == [("de-en", "3fa2")]


def test_a_bound_of_no_character_is_refused(make_model: MakeModel) -> None:
    with pytest.raises(RequestError, match="max_characters 0"):
        heliograph.load_model(str(make_model(1)), max_characters=0)


def test_a_sentence_may_be_as_long_as_those_in_training(
    make_model: MakeModel, tmp_path: Path
) -> None:
    """A million characters took all memory; a clear word takes none (issue 17, point 8)."""
    folder = make_model(1)
    source = PAIRS[0][0]
    long = source + "." * (2001 - len(source))
    for texts, number in (([long], 0), ([source, "x" * 1_000_000], 1)):
        with pytest.raises(RequestError, match=f"sentence {number} has .*at most 2,000 are"):
            heliograph.translate(str(folder), texts)
    (translation,) = heliograph.translate(str(folder), [source])
    assert translation == PAIRS[0][1]
    more = heliograph.load_model(str(folder), decoding=["beam=1"], max_characters=2001)
    assert len(more.translate([long])) == 1


def test_how_long_those_were_is_in_the_recipe(make_model: MakeModel, tmp_path: Path) -> None:
    for file in make_model(1).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    data = {"train": "a", "validation": "a", "max_characters": 50}
    recipe = Recipe.model_validate({"name": "a", "data": data, "train": {"steps": 1}})
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    loaded = heliograph.load_model(str(tmp_path))
    assert loaded.max_characters == 50
    with pytest.raises(RequestError, match="at most 50 are translated"):
        loaded.translate(["x" * 51])
