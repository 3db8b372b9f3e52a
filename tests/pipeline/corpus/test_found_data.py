"""A source that is away: what was prepared of it is found all the same."""

import json
from pathlib import Path

import pytest

from heliograph.pipeline.corpus.corpus import Corpus, prepare_corpus
from heliograph.pipeline.corpus.found_data import find_recipe_data, recall
from heliograph.pipeline.request.data import Data, Location, PairOfFiles
from heliograph.pipeline.request.errors import RequestError, Unreachable


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    lines = [json.dumps({"source": f"word {n}", "target": f"Wort {n}"}) for n in range(50)]
    Path("pairs.jsonl").write_text("\n".join(lines))
    for side in ("source", "target"):
        Path(f"{side}.txt").write_text("".join(f"{side} {n}\n" for n in range(50)))
    return tmp_path


def prepare(location: Location, told: list[str], **settings: object) -> Corpus:
    settings |= {"train": location, "validation": location, "validation_split": "train"}
    data = Data.model_validate(settings)
    found = find_recipe_data(data, "storage")["data.train"]
    return prepare_corpus(found, 10, "storage", tell=told.append)


@pytest.mark.parametrize(
    ("location", "file"),
    [
        ("pairs.jsonl", "pairs.jsonl"),
        (["pairs.jsonl"], "pairs.jsonl"),
        ("pairs*.jsonl", "pairs.jsonl"),
        (PairOfFiles(source="source.txt", target="target.txt"), "target.txt"),
    ],
)
def test_a_file_that_was_moved_away_is_told_and_not_needed(
    folder: Path, ray_cluster: None, location: Location, file: str
) -> None:
    told: list[str] = []
    before = prepare(location, told)
    assert told == []
    (folder / file).rename(folder / "elsewhere")
    assert prepare(location, told) == before
    (line,) = told
    assert "no such file" in line
    assert "goes on from the 50 pairs prepared of it" in line
    with pytest.raises(Unreachable, match="no such file"):  # other pairs than were prepared
        prepare(location, told, max_rows=20)
    with pytest.raises(RequestError, match=r"data\.train: .*no such file"):
        prepare(location, told, source="another")


def test_what_was_found_is_not_looked_for_again(folder: Path, ray_cluster: None) -> None:
    """In one start: what is prepared is what was checked (issue 16, 3)."""
    before = prepare("pairs.jsonl", [])
    data = Data(train="pairs.jsonl", validation="pairs.jsonl", validation_split="train")
    found = find_recipe_data(data, "storage")
    assert list(found) == ["data.train", "data.validation"]
    (folder / "pairs.jsonl").unlink()
    told: list[str] = []
    for each in found.values():
        assert prepare_corpus(each, 10, "storage", tell=told.append) == before
    assert told == []


def test_another_folder_s_file_of_the_same_name_is_another(
    folder: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare("pairs.jsonl", [])
    (folder / "beside").mkdir()
    monkeypatch.chdir(folder / "beside")
    data = Data(train="pairs.jsonl", validation="pairs.jsonl")
    assert recall("../storage", "pairs.jsonl", data, "train") is None
    assert recall("../storage", "../pairs.jsonl", data, "train") is not None


def test_a_file_that_cannot_be_read_any_more_is_not_taken_for_one_that_is_away(
    folder: Path, ray_cluster: None
) -> None:
    prepare("pairs.jsonl", [])
    (folder / "pairs.jsonl").write_text("no JSON")
    with pytest.raises(RequestError, match=r"data\.train: .*pairs\.jsonl"):
        prepare("pairs.jsonl", [])
