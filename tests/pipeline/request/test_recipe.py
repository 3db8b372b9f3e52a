"""Recipes: every mistake names its key, its value and what is valid; the same job has one id."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from heliograph.pipeline.request.data import PairOfFiles
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.request.placement import idle_workers
from heliograph.pipeline.request.recipe import Recipe
from heliograph.pipeline.request.recipe_file import load_recipe, parse_recipe

ROOT = Path(__file__).parents[3]
SHIPPED = sorted((ROOT / "recipes").glob("*.yaml"))

MINIMAL = """\
name: tiny
data: {train: embedded:train, validation: embedded:validation}
train: {steps: 2}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(MINIMAL)
    return path


@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_keep_every_worker_at_work(shipped: Path) -> None:
    recipe = load_recipe(shipped)
    assert idle_workers(recipe.batches, recipe.cluster.workers) is None


@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_are_valid_and_open_with_their_command(shipped: Path) -> None:
    recipe = load_recipe(shipped)
    assert shipped.read_text().startswith("# heliograph ")
    assert f"recipes/{shipped.name}" in shipped.read_text().split("\n\n")[0]
    assert parse_recipe(yaml.safe_load(recipe.to_yaml())) == recipe, "written whole, read back"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.widht=4"], r"model\.widht: unknown key; did you mean 'width'\?"),
        (["modle.width=4"], r"modle: unknown key; did you mean 'model'\?"),
        (["model.zzz=4"], r"model\.zzz: unknown key; valid: .*width"),
        (["train.steps=many"], r"train\.steps: 'many'"),
        (["train.steps=0"], r"train\.steps: 0: .*greater than or equal to 1"),
        (["model.dropout=1"], r"model\.dropout: 1: .*less than 1"),
        (["model.norm=mid"], r"model\.norm: 'mid': .*'post' or 'pre'"),
        (["model.heads=3"], r"model: width 512 .* heads=3"),
        (["train.steps="], r"train: set epochs or steps"),
        (["train.average_checkpoints=9"], r"train: average_checkpoints 9"),
        (["batches.tokens_per_step=16"], r"tokens_per_step 16"),
        (["name=a b"], r"name: 'a b'"),
        (["data.train=3"], r"data\.train: 3"),
        (["train=3"], r"train: 3"),
        (["train.steps"], r"'train\.steps' must read"),
        (["=3"], r"'=3' must read"),
        (["train.steps=[1"], r"'train\.steps=\[1'"),
    ],
)
def test_a_mistake_names_key_and_value(overrides: list[str], message: str, path: Path) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        load_recipe(path, overrides)
    assert "\n" not in str(caught.value)
    assert "pydantic" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "name: [", "just words", "name: \udcff"])
def test_a_file_that_is_no_recipe(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(RequestError, match=r"recipe\.yaml"):
        load_recipe(path)


def test_a_key_that_is_given_twice_is_named_with_its_lines(path: Path) -> None:
    """The second one would win in silence (issue 15, 10)."""
    path.write_text(f"{MINIMAL}model: {{width: 32}}\nseed: 3\nmodel: {{heads: 4}}\n")
    with pytest.raises(
        RequestError, match=r"recipe\.yaml': 'model' is given twice, in lines 4 and 6"
    ):
        load_recipe(path)


def test_names_that_yaml_takes_for_something_else_are_names(path: Path) -> None:
    """Norwegian, for one (issue 15, 10)."""
    path.write_text(MINIMAL.replace("name: tiny", "name: 2026-05-01"))
    recipe = load_recipe(path, ["data.source=no", "data.target=on", "data.drop_identical=true"])
    assert (recipe.name, recipe.data.source, recipe.data.target) == ("2026-05-01", "no", "on")
    assert recipe.data.drop_identical
    assert load_recipe(path, ["data.drop_identical=yes"]).data.drop_identical
    assert parse_recipe(yaml.safe_load(recipe.to_yaml())) == recipe
    with pytest.raises(RequestError, match="name: 7: must be text: put quotation marks around it"):
        load_recipe(path, ["name=007"])


def test_a_glob_needs_no_quotation_marks_as_an_override(path: Path) -> None:
    assert load_recipe(path, ["data.train=*.tsv"]).data.train == "*.tsv"
    with pytest.raises(RequestError, match="needs quotation marks"):
        load_recipe(path, ["data.train=[*.tsv]"])


def test_overrides_are_yaml_and_the_last_one_wins(path: Path) -> None:
    recipe = load_recipe(
        path,
        ["data.train={source: a.en, target: a.de}", "data.validation=[b, c]", "seed=2", "seed=3",
         "data.revision=", "registry.name=a=b"],
    )  # fmt: skip
    assert recipe.data.train == PairOfFiles(source="a.en", target="a.de")
    assert recipe.data.validation == ["b", "c"]
    assert (recipe.seed, recipe.data.revision, recipe.registry.name) == (3, None, "a=b")


@given(st.text(max_size=20))
def test_any_override_is_taken_or_refused_in_one_line(override: str) -> None:
    message = ""
    try:
        load_recipe(ROOT / "recipes" / "demo.yaml", [override])
    except RequestError as error:
        message = str(error)
    assert "\n" not in message


def test_the_job_is_what_decides_the_result(path: Path) -> None:
    job = load_recipe(path).job_id
    for elsewhere in (
        "cluster.workers=7",
        "track.samples=1",
        "storage=/x",
        "registry.gate=[]",
        "card.license=MIT",
    ):
        assert load_recipe(path, [elsewhere]).job_id == job, elsewhere
    for other in ("seed=2", "model.dropout=0.2", "train.steps=3", "data.source=en", "name=b"):
        assert load_recipe(path, [other]).job_id != job, other


def test_every_field_says_what_it_is() -> None:
    """Names that say it all are named here; every other field has its docstring."""
    plain = {"encoder_layers", "decoder_layers", "warmup_steps", "betas", "epsilon", "seed"}
    plain |= {
        "beam",
        "experiment",
        "weight_decay",
        "source",
        "target",
        "max_length_factor",
        "train_split",
    }

    def undocumented(section: type[BaseModel]) -> list[str]:
        found = []
        for name, field in section.model_fields.items():
            kind: Any = field.annotation
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found += undocumented(kind)
            elif not field.description and name not in plain:
                found.append(f"{section.__name__}.{name}")
        return found

    assert undocumented(Recipe) == []


def test_defaults_are_in_the_schema_that_editors_read() -> None:
    schema = Recipe.model_json_schema()
    assert schema["$defs"]["Model"]["properties"]["width"]["default"] == 512
    assert schema["$defs"]["Batches"]["properties"]["tokens_per_step"]["description"]


def test_the_editors_schema_is_the_recipes() -> None:
    text = (ROOT / "recipes" / "schema.json").read_text(encoding="utf-8")
    assert text == Recipe.json_schema(), "run `make schema`"
