"""What lies on a storage is seen, and nothing is removed that a job needs."""

import json
import os
import time
from pathlib import Path

import pytest

from heliograph.pipeline.job.data import DATA
from heliograph.pipeline.job.stored import list_stored, remove_stored
from heliograph.pipeline.request.errors import RequestError

ALL = ["corpora/dead", "corpora/old", "corpora/used", "tokenizers/t", "jobs/a-1", "jobs/b-1"]


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """A corpus that two jobs use, one that none does, one that is half written."""
    for name, rows in (("used", 30), ("old", 20)):
        folder = tmp_path / "corpora" / name
        (folder / "attempt").mkdir(parents=True)
        (folder / "attempt" / "part-0.parquet").write_bytes(b"x" * 1000)
        manifest = {"rows": rows, "identity": {"location": f"{name}.tsv"}}
        (folder / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "corpora/dead/attempt").mkdir(parents=True)
    (tmp_path / "corpora/dead/attempt/part-0.parquet").write_bytes(b"x")
    (tmp_path / "tokenizers/t").mkdir(parents=True)
    (tmp_path / "tokenizers/t/tokenizer.json").write_text("{}")
    for job in ("a-1", "b-1"):
        (tmp_path / "jobs" / job).mkdir(parents=True)
        uses = {"folders": ["corpora/used", "tokenizers/t"]}
        (tmp_path / "jobs" / job / DATA).write_text(json.dumps(uses))
    return tmp_path


def names(storage: Path) -> list[str]:
    return [each.name for each in list_stored(str(storage))]


def test_all_is_listed_with_who_uses_it(storage: Path) -> None:
    stored = {each.name: each for each in list_stored(str(storage))}
    assert list(stored) == ALL
    assert stored["corpora/used"].used_by == stored["tokenizers/t"].used_by == ("a-1", "b-1")
    assert stored["corpora/old"].made_of == "20 pairs of old.tsv"
    assert stored["corpora/old"].bytes > 1000
    assert not stored["corpora/dead"].whole


def test_unused_is_what_no_job_uses_and_nobody_writes(storage: Path) -> None:
    assert [each.name for each in remove_stored(str(storage), ["unused"])] == ["corpora/old"]
    assert names(storage) == [name for name in ALL if name != "corpora/old"]
    two_days_ago = time.time() - 2 * 86_400
    os.utime(storage / "corpora/dead/attempt/part-0.parquet", (two_days_ago, two_days_ago))
    assert [each.name for each in remove_stored(str(storage), ["unused"])] == ["corpora/dead"]
    assert remove_stored(str(storage), ["unused"]) == []


def test_what_a_job_needs_goes_only_with_the_job(storage: Path) -> None:
    for asked in (["corpora/used"], ["corpora/used", "jobs/a-1"], ["corpora/old", "tokenizers/t"]):
        with pytest.raises(RequestError, match=r"begun with it, .*b-1; remove jobs/"):
            remove_stored(str(storage), asked)
    assert names(storage) == ALL, "nothing is removed where something must not be"
    remove_stored(str(storage), ["corpora/used", "jobs/a-1", "jobs/b-1"])
    assert names(storage) == ["corpora/dead", "corpora/old", "tokenizers/t"]


@pytest.mark.parametrize("name", ["corpora/odl", "../storage", "", "jobs"])
def test_only_what_is_listed_can_be_removed(storage: Path, name: str) -> None:
    with pytest.raises(RequestError, match="no such folder"):
        remove_stored(str(storage), [name])
    assert names(storage) == ALL


def test_a_storage_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert list_stored(str(tmp_path / "nothing")) == []
    assert remove_stored(str(tmp_path / "nothing"), ["unused"]) == []
