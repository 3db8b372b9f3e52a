"""The model card says what is so, in forms that others read, whatever its values hold."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml
from huggingface_hub import ModelCard as HubCard
from markdown_it import MarkdownIt

from heliograph.pipeline.checkpoints.training_state import Meter, TrainingState
from heliograph.pipeline.registry.model_card import DESCRIPTION_LIMIT, ModelCard, Weights
from heliograph.pipeline.registry.provenance import DataSet, Provenance
from heliograph.pipeline.registry.registry import fetch_model, register
from heliograph.pipeline.request.recipe import Recipe
from heliograph.pipeline.request.recipe_file import load_recipe, parse_recipe
from heliograph.pipeline.scoring.evaluate import evaluate, score, write_evaluation_set
from heliograph.pipeline.steps.windows import Position
from heliograph.pipeline.translation.translate import Translator
from tests.pipeline.conftest import PAIRS, MakeModel
from tests.pipeline.model_store import SETTINGS, Store

HYPOTHESES = [target for _, target in PAIRS[:4]] + ["Sie gibt ihm das Buch.", "Nein."]
TRAIN = DataSet(
    "train", "ab" * 32, "owner/pairs", "train", None, "c0ffee", 970, 1000, {"empty": 30, "long": 0}
)
VALIDATION = DataSet("validation", "cd" * 32, "/data/held-out.parquet", rows=6, seen=6)


def recipe(**sections: Any) -> Recipe:
    tree = {
        "name": "tiny",
        "data": {"train": "owner/pairs", "validation": "x.parquet", "source": "en", "target": "de"},
        "train": {"steps": 120},
        "evaluate": {"beam": 2},
    }
    return parse_recipe(tree | sections)


def card(recipe: Recipe, **changes: Any) -> ModelCard:
    made = ModelCard(
        recipe=recipe,
        provenance=Provenance(
            "0123abcd", "tiny-0123456789", (TRAIN, VALIDATION), "ef" * 32, "01" * 32
        ),
        weights=Weights(12345, 49380, 320, step=100, averaged=False),
        state=TrainingState(
            step=120, position=Position(epoch=3), total=Meter(target_tokens=5000, seconds=61.0)
        ),
        scores=score(HYPOTHESES, [target for _, target in PAIRS]),
        pairs=PAIRS,
    )
    return replace(made, **changes)


STATED = {
    "languages": ["en", "de"],
    "license": "Apache-2.0",
    "data_license": "CC0-1.0",
    "contact": "mt@example.org",
    "notes": "Captions only.\nNot for *contracts*.",
}


def test_what_is_stated_is_there_as_the_hub_reads_it() -> None:
    made = card(recipe(card=STATED))
    read = HubCard(made.page())
    assert read.data.language == ["en", "de"]
    assert read.data.license == "apache-2.0"
    assert read.data.datasets == ["owner/pairs"]
    bleu, chrf = read.data.eval_results or []
    assert (bleu.metric_type, bleu.metric_value) == ("bleu", made.scores.bleu)
    assert (chrf.metric_type, chrf.metric_value) == ("chrf", made.scores.chrf)
    assert bleu.task_type == "translation"
    assert bleu.dataset_name == "/data/held-out.parquet"
    assert bleu.metric_args is not None
    assert bleu.metric_args["signature"] == made.scores.signatures["bleu"]
    assert bleu.metric_args["confidence_interval_95"] > 0


def test_the_page_has_data_scores_recipe_and_commands() -> None:
    made = card(recipe(card=STATED))
    text = made.page()
    for said in (
        "owner/pairs | train | c0ffee | 1,000 | 970 | empty 30 | " + "ab" * 32 + " |",
        f"| BLEU | {made.scores.bleu:.2f} | ± ",
        made.scores.signatures["bleu"].replace("|", "\\|"),
        "| tokenizer | 320 tokens, " + "ef" * 32,
        "| weights of | step 100 |",
        "| optimizer steps | 120 |",
        "Licence of the training data: CC0-1.0",
        "> Not for \\*contracts\\*.",
        f"sources of {min(len(s) for s, _ in PAIRS)} to {max(len(s) for s, _ in PAIRS)} characters",
        "mlflow.pyfunc.load_model('runs:/0123abcd/tiny')",
    ):
        assert said in text, said
    [block] = [
        token.content
        for token in MarkdownIt().parse(text)
        if token.type == "fence" and token.info == "yaml"
    ]
    assert parse_recipe(yaml.safe_load(block)) == made.recipe


def test_what_is_not_stated_is_not_guessed() -> None:
    text = card(recipe(), provenance=Provenance("0123abcd")).page()
    front = yaml.safe_load(text.split("---\n")[1])
    assert not front.keys() & {"language", "license", "license_name", "datasets", "pipeline_tag"}
    for field in ("Licence of the model", "Licence of the training data", "Contact"):
        assert f"- {field}: not stated\n" in text
    assert "## Data\n\nNot recorded." in text


def test_a_licence_the_hub_has_no_word_for_is_other() -> None:
    front = HubCard(card(recipe(card={"license": "In-house: ask"})).page()).data
    assert (front.license, front.license_name) == ("other", "In-house: ask")


HOSTILE = "x`|</table>\n---\n# [a](b) ```\n'\": {}\x1b\u202e & ~~~"


def test_hostile_values_break_neither_part() -> None:
    stated = dict.fromkeys(("license", "data_license", "contact", "notes"), HOSTILE)
    registry = {"name": "x|<b>- **[a](b) {} & ~~~"}  # as far as a recipe lets a name be
    data = replace(TRAIN, location=HOSTILE, revision=HOSTILE, split=HOSTILE)
    held_out = replace(data, context="validation", dropped={HOSTILE: 1})
    made = card(
        recipe(card=stated, registry=registry),
        provenance=Provenance("0123abcd", HOSTILE, (data, held_out), code={HOSTILE: HOSTILE}),
    )
    tame = card(recipe(card={**STATED, "notes": "one line"}))
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])

    def headings(text: str) -> list[str]:
        tokens = parser.parse(text.partition("\n---\n")[2] if text.startswith("---") else text)
        inside = [child for token in tokens for child in token.children or []]
        own = [child.content for child in inside if child.type == "code_inline"]
        assert own in ([], ["heliograph lineage --data DIGEST"])
        kinds = {child.type for child in inside}
        assert kinds <= {"text", "text_special", "softbreak", "code_inline"}, kinds
        assert not {token.type for token in tokens} & {"html_block", "hr"}
        return [tokens[i + 1].content for i, t in enumerate(tokens) if t.type == "heading_open"]

    assert headings(made.page())[1:] == headings(tame.page())[1:]
    assert headings(made.description(3))[1:] == headings(tame.description(3))[1:]
    front = HubCard(made.page()).data
    assert front.license == "other"
    assert front.datasets == [HOSTILE] or front.datasets == [" ".join(front.datasets[0].split())]


def test_the_description_is_as_long_as_it_may_be() -> None:
    notes = "\n".join(f"note {number}" for number in range(450))
    long = card(recipe(card={**STATED, "notes": notes}))
    short = card(recipe(card=STATED))
    assert "In recipe.yaml and README.md" in short.description(7)
    assert "models:/tiny/7" in short.description(7)
    assert not short.description(7).startswith("---")
    many = Provenance(
        "0123abcd", data=tuple(replace(TRAIN, context=f"train.{n}") for n in range(40))
    )
    for made in (long, card(recipe(card={**STATED, "notes": notes}), provenance=many)):
        text = made.description(7)
        assert len(text) <= DESCRIPTION_LIMIT
        assert text.endswith("The whole card is README.md among the version's files.")
        assert "models:/tiny/7" in text
        assert f"BLEU | {made.scores.bleu:.2f}" in text


@pytest.fixture
def registered(store: Store, make_model: MakeModel, tmp_path: Path) -> tuple[Store, ModelCard]:
    """Version 1 of `tiny`, with its card, as `finish` registers it."""
    folder = make_model(3, known=4)
    here = tmp_path / "finished"
    here.mkdir()
    for path in folder.iterdir():
        (here / path.name).write_bytes(path.read_bytes())
    (here / "recipe.yaml").write_text(recipe().to_yaml())
    scores = evaluate(Translator.load(here, "cpu"), PAIRS, SETTINGS)
    made = card(recipe(), scores=scores, provenance=Provenance(store.run_id, data=(TRAIN,)))
    digest = write_evaluation_set(here, PAIRS)
    assert register(store.run_id, here, "tiny", scores, digest, "cpu", made) == 1
    return store, made


def test_the_card_is_with_the_version(registered: tuple[Store, ModelCard]) -> None:
    store, made = registered
    version = store.client.get_model_version("tiny", "1")
    assert version.description == made.description(1)
    assert "README.md" in json.loads(version.tags["heliograph.checksums"])
    page = Path(fetch_model("models:/tiny/1"), "README.md")
    assert page.read_text(encoding="utf-8") == made.page()
    assert load_recipe(page.with_name("recipe.yaml"), []) == made.recipe


def test_what_somebody_wrote_stays(registered: tuple[Store, ModelCard], tmp_path: Path) -> None:
    store, made = registered
    store.client.update_model_version("tiny", "1", "by hand")
    again = register(store.run_id, tmp_path / "finished", "tiny", made.scores, "", "cpu", made)
    assert again == 1
    assert store.client.get_model_version("tiny", "1").description == "by hand"


def test_both_addresses_of_the_card_load(registered: tuple[Store, ModelCard]) -> None:
    store, made = registered
    for uri in (f"runs:/{store.run_id}/tiny", "models:/tiny/1"):
        assert f"load_model('{uri}')" in made.page() + made.description(1)
        assert mlflow.pyfunc.load_model(uri).predict([PAIRS[0][0]]) == made.scores.hypotheses[:1]
