"""The Python way in: what the commands call, and nothing heavy before it is needed."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import heliograph
from tests.waiting import DEADLINE

RECIPE = {"name": "small", "data": {"train": "embedded:train", "validation": "embedded:validation"}}
HEAVY = ("torch", "ray", "mlflow", "datasets", "numpy", "pyarrow", "pydantic")


def test_a_recipe_comes_from_dictionaries_or_from_its_file(tmp_path: Path) -> None:
    given = RECIPE | {"train": {"steps": 7}}
    recipe = heliograph.load_recipe(given, ["train.warmup_steps=3", "model.width=64"])
    assert (recipe.train.steps, recipe.train.warmup_steps, recipe.model.width) == (7, 3, 64)
    assert given == RECIPE | {"train": {"steps": 7}}, "what is given stays as it is"
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    assert heliograph.load_recipe(tmp_path / "recipe.yaml") == recipe


def test_mistakes_are_those_of_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    recipe = RECIPE | {"train": {"steps": 2}}
    with pytest.raises(heliograph.RequestError, match="did you mean 'steps'"):
        heliograph.load_recipe(recipe, ["train.stepz=3"])
    missing = heliograph.load_recipe(recipe, ["data.train=nowhere.jsonl"])
    with pytest.raises(
        heliograph.RequestError, match=r"data\.train: 'nowhere\.jsonl': no such file"
    ):
        heliograph.train(missing)
    for use in (heliograph.evaluate, heliograph.load_model):
        with pytest.raises(heliograph.RequestError, match="'nobody' does not exist"):
            use("models:/nobody@champion")
    with pytest.raises(heliograph.RequestError, match="'nobody' does not exist"):
        heliograph.promote("nobody")
    with pytest.raises(heliograph.RequestError, match=r"registry\.gate"):
        heliograph.promote("nobody", rules=[{"kind": "bigger"}])
    assert list(tmp_path.iterdir()) == []


def test_each_function_says_what_it_raises() -> None:
    for name in heliograph.__all__:
        function = getattr(heliograph, name)
        if inspect.isfunction(function):
            assert "Raises:" in (inspect.getdoc(function) or ""), name


def test_the_face_loads_nothing_heavy() -> None:
    script = f"import sys, heliograph; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=DEADLINE, check=True
    )
    assert done.stdout.strip() == "[]"
