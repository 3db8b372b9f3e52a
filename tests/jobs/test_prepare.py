"""`heliograph prepare`, on a Ray that runs."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from heliograph.jobs.command import application
from heliograph.jobs.prepare import prepare
from heliograph.pipeline.sources.embedded.grammar import pairs


@pytest.mark.usefixtures("ray_cluster")
def test_prepare_says_what_it_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [json.dumps({"source": s, "target": t}) for s, t in pairs("train")[:200]]
    (tmp_path / "pairs.jsonl").write_text("\n".join([*lines, "{}"]), encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(
        "name: small\n"
        "data: {train: pairs.jsonl, validation: embedded:validation}\n"
        "tokenizer: {vocabulary_size: 400}\n"
        "train: {epochs: 1}\n"
    )
    done = CliRunner().invoke(application(prepare), ["recipe.yaml", "--json"])
    assert done.exit_code == 0, done.stderr
    (corpus,) = json.loads(done.stdout.splitlines()[-1])["corpora"]
    assert corpus["location"] == "pairs.jsonl"
    assert corpus["pairs"] == 200
    assert corpus["dropped"] == {"missing": 1}
    assert (Path(corpus["folder"]) / "manifest.json").exists()
    assert done.stdout.startswith("'pairs.jsonl': 200 pairs (dropped: missing 1), ")
