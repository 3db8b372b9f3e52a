"""Languages of six scripts, from two text files to a registered model with a score that means
something there (issue 15)."""

from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

import heliograph
from tests.languages import pairs_with
from tests.small_job import small_recipe

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("ray_cluster")]

TRAINED, VALIDATED = 600, 60


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("hi", "13a"),
        ("th", "char"),
        ("zh", "zh"),
        ("ar", "13a"),
        ("ja", "char"),  # ja-mecab where MeCab is installed
        ("de", "13a"),
    ],
)
def test_a_language_is_learnt_and_scored_by_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    pairs = pairs_with(language, TRAINED + VALIDATED)
    for split, some in (("train", pairs[:TRAINED]), ("validation", pairs[TRAINED:])):
        for side, name in enumerate(("en", language)):
            lines = [pair[side] for pair in some]
            path = tmp_path / f"{split}.{name}"
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    data = {
        split: {"source": f"{tmp_path}/{split}.en", "target": f"{tmp_path}/{split}.{language}"}
        for split in ("train", "validation")
    }
    recipe = small_recipe(
        tmp_path,
        name=f"en-{language}",
        data=data | {"source": "source", "target": "target"},
        model={"width": 64, "heads": 4, "feed_forward": 128, "dropout": 0.0},
        train={"steps": 200, "warmup_steps": 50, "checkpoint_steps": 100},
        validation={"every_steps": 100},
    )
    result = heliograph.train(recipe)
    run = MlflowClient().get_run(result["run_id"])
    assert f"tok:{words}" in run.data.tags["heliograph.signature.bleu"]
    assert result["metrics"]["valid/bleu"] > 50, result["metrics"]
    translate = heliograph.load_model(result["model"]["uri"]).translate
    source, target = pairs[TRAINED]
    (translation,) = translate([source])
    shared = set(translation) & set(target)
    assert len(shared) > len(set(target)) / 2, (translation, target)
