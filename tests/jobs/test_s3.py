"""Storage and output in a bucket: a whole job, and a data set's translation."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyarrow.fs import FileSystem

from tests.jobs.conftest import run_command
from tests.s3 import BUCKET
from tests.small_job import small_recipe

pytestmark = pytest.mark.faults  # for its length


def test_a_job_and_a_translation_in_a_bucket(tmp_path: Path, s3: dict[str, str]) -> None:
    recipe = small_recipe(tmp_path, storage=f"{BUCKET}/storage", cluster={"workers": 1})
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    trained = run_command(
        ["-m", "heliograph.jobs.cli", "train", "recipe.yaml", "--json"], tmp_path, s3
    )
    assert trained.exit_code == 0, trained.stderr
    result = json.loads(trained.stdout.splitlines()[-1])
    assert result["checkpoint"].startswith(f"{BUCKET}/storage/jobs/")
    listed = run_command(
        ["-m", "heliograph.jobs.cli", "storage", f"{BUCKET}/storage"], tmp_path, s3
    )
    assert "corpora/" in listed.stdout, listed.stderr

    rows = [json.loads(line) for line in (tmp_path / "validation.jsonl").read_text().splitlines()]
    texts = [{"source": row["translation"]["en"]} for row in rows]
    (tmp_path / "in.jsonl").write_text("".join(f"{json.dumps(text)}\n" for text in texts))
    words = ["translate", result["model"]["uri"], "--input", "in.jsonl"]
    words += ["--output", f"{BUCKET}/translations"]
    translated = run_command(["-m", "heliograph.jobs.cli", *words], tmp_path, s3)
    assert translated.exit_code == 0, translated.stderr
    filesystem, path = FileSystem.from_uri(f"{BUCKET}/translations")
    table = pq.read_table(path, filesystem=filesystem)
    assert table["source"].to_pylist() == [text["source"] for text in texts]
    assert all(table["translation"].to_pylist())
    assert not list(tmp_path.glob("s3:*"))
