"""From a recipe to what training reads: mixtures, tokens, limits and augmentation together."""

import json
from pathlib import Path
from typing import Any

import pytest

from heliograph.pipeline.corpus.found_data import find_recipe_data
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.request.recipe import Recipe
from heliograph.pipeline.request.recipe_file import parse_recipe
from heliograph.pipeline.sources.embedded.grammar import pairs
from heliograph.pipeline.steps import prepare as steps
from heliograph.pipeline.steps.prepare import Prepared
from heliograph.pipeline.steps.tokenizer import Tokenizer

pytestmark = pytest.mark.usefixtures("ray_cluster")

MakeRecipe = Any


@pytest.fixture
def make_recipe(tmp_path: Path) -> MakeRecipe:
    """A recipe over two files of 300 and 60 pairs, with some keys changed."""
    for name, rows in (("large", pairs("train")[:300]), ("small", pairs("train")[300:360])):
        lines = [json.dumps({"en": source, "de": target}) for source, target in rows]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")

    def make(**changes: Any) -> Recipe:
        tree: dict[str, Any] = {
            "name": "test",
            "storage": str(tmp_path / "storage"),
            "data": {
                "train": f"{tmp_path}/large.jsonl",
                "validation": f"{tmp_path}/small.jsonl",
                "source": "en",
                "target": "de",
            },
            "tokenizer": {"vocabulary_size": 400},
            "batches": {"piece_rows": 30, "tokens_per_micro_batch": 256},
            "train": {"epochs": 2},
        }
        for section, values in changes.items():
            tree[section] = tree.get(section, {}) | values
        return parse_recipe(tree)

    return make


def prepare(recipe: Recipe, *, tokenize: bool) -> Prepared:
    found = find_recipe_data(recipe.data, recipe.storage)
    return steps.prepare(recipe, found, tokenize=tokenize)


def test_a_test_set_is_kept_apart(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe()
    without = prepare(recipe, tokenize=False)
    assert without.evaluation is without.validation
    test = pairs("test")[:20]
    lines = [json.dumps({"en": source, "de": target}) for source, target in test]
    (tmp_path / "test.jsonl").write_text("\n".join(lines), encoding="utf-8")
    recipe = make_recipe(data={"test": f"{tmp_path}/test.jsonl"})
    prepared = prepare(recipe, tokenize=False)
    assert prepared.evaluation.head(None) == test
    assert prepared.validation == without.validation
    assert prepared.texts == without.texts
    assert prepared.tokenizer == without.tokenizer
    assert len(prepared.corpora) == 3
    assert prepared.evaluation.folder in prepared.folders
    recipe = make_recipe(data={"test": f"{tmp_path}/tset.jsonl"})
    with pytest.raises(RequestError, match=r"data\.test: .*tset\.jsonl"):
        prepare(recipe, tokenize=False)


def test_tokens_are_used_once_they_were_prepared(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    before = prepare(recipe, tokenize=False)
    assert before.tokens is None
    assert before.training is before.texts
    prepared = prepare(recipe, tokenize=True)
    assert prepared.tokens is not None
    again = prepare(recipe, tokenize=False)
    assert again == prepared
    assert again.training is again.tokens
    other = prepare(make_recipe(tokenizer={"vocabulary_size": 380}), tokenize=False)
    assert other.tokens is None


def test_a_mixture_weighs_its_corpora_and_shares_one_tokenizer(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    mixture = [
        {"location": f"{tmp_path}/large.jsonl", "weight": 0.5},
        {"location": f"{tmp_path}/small.jsonl", "weight": 3, "source": "de", "target": "en"},
    ]
    prepared = prepare(make_recipe(data={"train": mixture}), tokenize=True)
    assert [corpus.rows for corpus in prepared.texts.corpora] == [300, 60]
    assert prepared.texts.shares == (5, 6)
    assert prepared.texts.corpora[1].head(1) == [pairs("train")[300][::-1]]
    assert prepared.tokens is not None
    assert prepared.tokens.shares == (5, 6)


def test_tokens_are_not_prepared_for_training_that_draws_its_own(make_recipe: MakeRecipe) -> None:
    prepare(make_recipe(), tokenize=True)
    recipe = make_recipe(augment={"bpe_dropout": 0.1})
    assert prepare(recipe, tokenize=False).tokens is None
    with pytest.raises(RequestError, match="augment cuts words into other tokens each time"):
        prepare(recipe, tokenize=True)


def test_a_stream_is_read_as_far_as_the_steps_need(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    stream = {"train": {"stream": "json", "files": f"{tmp_path}/large.jsonl"}}
    batches = {"tokens_per_step": 256}
    some = prepare(
        make_recipe(data=stream, batches=batches, train={"epochs": None, "steps": 4}),
        tokenize=False,
    ).texts.corpora[0]
    words = [max(len(side.split()) for side in pair) + 1 for pair in some.head(None)]
    assert sum(words[:-1]) < 4 * 256 <= sum(words)
    whole = prepare(make_recipe(data=stream, batches=batches), tokenize=False).texts.corpora[0]
    assert whole.rows == 300


def test_the_normal_form_is_the_tokenizers_too(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    decomposed = [{"en": "cafe\u0301", "de": "u\u0308ber"}] * 40
    file = tmp_path / "decomposed.jsonl"
    file.write_text("\n".join(map(json.dumps, decomposed)), encoding="utf-8")
    prepared = prepare(make_recipe(data={"train": str(file), "unicode": "NFC"}), tokenize=False)
    assert prepared.texts.corpora[0].head(1) == [("caf\u00e9", "\u00fcber")]
    assert prepared.texts.corpora[0].changed == {"normalized": 40}
    tokenizer = Tokenizer.load(prepared.tokenizer)
    assert tokenizer.encode_batch(["cafe\u0301"]) == tokenizer.encode_batch(["caf\u00e9"])
