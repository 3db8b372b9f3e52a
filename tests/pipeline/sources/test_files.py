"""Which files a location means: lists, globs, folders of several kinds."""

import os
from pathlib import Path

import fsspec
import pytest
from datasets import Dataset, DatasetDict

from heliograph.pipeline.request.data import PairOfFiles
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.sources.files import Files, find_files
from heliograph.pipeline.sources.source import check_source, find_source
from tests.pipeline.pairs import PAIRS, data, good, jsonl, parquet, rows


def test_lists_and_globs_keep_their_order(tmp_path: Path) -> None:
    for name, pair in zip(("b.jsonl", "a.jsonl", "c.jsonl"), PAIRS, strict=True):
        (tmp_path / name).write_bytes(jsonl([pair]))
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "d.jsonl").write_bytes(jsonl([("deep", "tief")]))
    named = [str(tmp_path / name) for name in ("c.jsonl", "b.jsonl")]
    assert rows(named) == good([PAIRS[2], PAIRS[0]])
    assert rows(str(tmp_path / "*.jsonl")) == good([PAIRS[1], PAIRS[0], PAIRS[2]])
    assert rows(str(tmp_path / "*" / "?.jsonl")) == good([("deep", "tief")])
    assert len(rows(str(tmp_path / "**" / "*.jsonl"))) == 4
    assert len(rows((tmp_path / "a.jsonl").as_uri())) == 1


def test_every_one_of_several_globs_must_match(tmp_path: Path) -> None:
    """One that does not was passed over where another one did (issue 15, 6)."""
    (tmp_path / "a.jsonl").write_bytes(jsonl(PAIRS))
    with pytest.raises(RequestError, match=r"b\*\.jsonl': no such file"):
        check_source(
            find_source([str(tmp_path / "a*.jsonl"), str(tmp_path / "b*.jsonl")], data(), "train")
        )


def test_globs_of_both_sides_are_paired_file_by_file(tmp_path: Path) -> None:
    """English was paired with English where no German file was there (issue 15, 6)."""
    sides = PairOfFiles(source=str(tmp_path / "part*.en"), target=str(tmp_path / "part*.de"))
    for number, (source, target) in enumerate(PAIRS):
        (tmp_path / f"part{number}.en").write_text(f"{source}\n")
        (tmp_path / f"part{number}.de").write_text(f"{target}\n")
    assert rows(sides) == good(PAIRS)
    (tmp_path / "part1.de").unlink()
    with pytest.raises(RequestError, match=r"are 3 files and .*part\*\.de' 2: each needs one"):
        check_source(find_source(sides, data(), "train"))
    for path in tmp_path.glob("*.de"):
        path.unlink()
    with pytest.raises(RequestError, match=r"part\*\.de': no such file"):
        check_source(find_source(sides, data(), "train"))


@pytest.mark.parametrize("suffix", [".xz", ".zip"])
def test_packed_sides_that_are_not_unpacked_are_refused_by_name(
    tmp_path: Path, suffix: str
) -> None:
    for side in ("en", "de"):
        (tmp_path / f"{side}{suffix}").write_bytes(b"packed")
    sides = PairOfFiles(source=f"{tmp_path}/en{suffix}", target=f"{tmp_path}/de{suffix}")
    with pytest.raises(RequestError, match=rf"\{suffix} files are not unpacked here.*\.gz"):
        check_source(find_source(sides, data(), "train"))


@pytest.mark.parametrize("name", ["train (de) [v1].jsonl", "a?b*.jsonl", ".hidden/ü x.jsonl"])
def test_a_path_that_is_there_is_that_file_whatever_characters_it_has(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(jsonl(PAIRS))
    assert rows(str(tmp_path / name)) == good(PAIRS)


def test_files_that_datasets_finds_may_have_brackets(tmp_path: Path) -> None:
    (tmp_path / "train [v1].jsonl").write_bytes(jsonl(PAIRS))
    assert rows(str(tmp_path)) == good(PAIRS)


def test_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "pairs.jsonl").write_bytes(jsonl(PAIRS))
    assert rows("~/pairs.jsonl") == good(PAIRS)


def test_a_folder_is_laid_out_as_on_the_hub(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(jsonl(PAIRS))
    (tmp_path / "val.jsonl").write_bytes(jsonl(PAIRS[:1]))
    assert rows(str(tmp_path)) == good(PAIRS)
    assert rows(str(tmp_path), "validation") == good(PAIRS[:1])


def test_a_folder_with_configurations_and_several_files(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n"
        "- config_name: de-en\n  data_files:\n  - {split: train, path: 'x/train-*'}\n"
        "- config_name: fr-en\n  data_files:\n  - {split: train, path: fr.jsonl}\n---\n"
    )
    (tmp_path / "x").mkdir()
    for number, pair in enumerate(PAIRS):
        name = f"train-{number:05}-of-00003.parquet"
        (tmp_path / "x" / name).write_bytes(parquet([pair]))
    (tmp_path / "fr.jsonl").write_bytes(jsonl([("a dog", "un chien")]))
    assert rows(str(tmp_path), configuration="de-en") == good(PAIRS)
    assert rows(str(tmp_path), configuration="fr-en") == good([("a dog", "un chien")])
    with pytest.raises(RequestError, match=r"data\.configuration.*de-en.*fr-en"):
        check_source(find_source(str(tmp_path), data(), "train"))


# --- Folders of save_to_disk --------------------------------------------------------------------


def dataset() -> Dataset:
    return Dataset.from_list([{"translation": {"en": en, "de": de}} for en, de in PAIRS])


def test_a_saved_dataset_is_read_file_by_file(tmp_path: Path) -> None:
    dataset().save_to_disk(tmp_path / "set", num_shards=3)
    found = find_source(str(tmp_path / "set"), data(), "whatever")
    assert len(found.parts) == 3
    assert not found.unbounded
    assert rows(str(tmp_path / "set")) == good(PAIRS)
    assert rows(str(tmp_path / "set" / "*.arrow")) == good(PAIRS)
    assert rows((tmp_path / "set").as_uri()) == good(PAIRS)


def test_of_several_saved_splits_the_named_one_is_read(tmp_path: Path) -> None:
    DatasetDict({"train": dataset(), "validation": dataset().select([1])}).save_to_disk(tmp_path)
    assert rows(str(tmp_path)) == good(PAIRS)
    assert rows(str(tmp_path), "validation") == good(PAIRS[1:2])
    with pytest.raises(RequestError, match=r"no split 'validaton'; did you mean 'validation'"):
        check_source(find_source(str(tmp_path), data(), "validaton"))


def test_a_dataset_that_was_not_saved_whole_is_refused(tmp_path: Path) -> None:
    dataset().save_to_disk(tmp_path / "set", num_shards=3)
    (tmp_path / "set" / "data-00001-of-00003.arrow").unlink()
    with pytest.raises(RequestError, match=r"data-00001-of-00003\.arrow.*state\.json beside it"):
        check_source(find_source(str(tmp_path / "set"), data(), "train"))
    DatasetDict({"train": dataset()}).save_to_disk(tmp_path / "dict")
    (tmp_path / "dict" / "train" / "state.json").write_text("{")
    with pytest.raises(RequestError, match=r"state\.json' is not JSON.*save the folder again"):
        check_source(find_source(str(tmp_path / "dict"), data(), "train"))
    (tmp_path / "dict" / "train" / "state.json").unlink()
    with pytest.raises(RequestError, match=r"no state\.json.*save it again"):
        check_source(find_source(str(tmp_path / "dict"), data(), "train"))


def test_folders_far_away(tmp_path: Path) -> None:
    dataset().save_to_disk(str(tmp_path))
    far = fsspec.filesystem("memory")
    for path in tmp_path.iterdir():
        far.pipe(f"/saved/{path.name}", path.read_bytes())
    far.pipe("/plain/train-0.jsonl", jsonl(PAIRS))
    assert rows("memory://saved/") == good(PAIRS)
    assert rows("memory://plain/*.jsonl") == good(PAIRS)
    with pytest.raises(RequestError, match=r"'memory://plain'.*memory://plain/train-\*\.parquet"):
        check_source(find_source("memory://plain", data(), "train"))


@pytest.mark.parametrize("location", ["", "*.jsonl", "caf*/*.jsonl"])
def test_a_name_that_is_not_utf_8_is_named(tmp_path: Path, location: str) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(name)
    for path in (name + b".jsonl", name + b"/train.jsonl"):
        Path(os.fsdecode(path)).write_bytes(jsonl(PAIRS))
    with pytest.raises(RequestError, match=r"the file name b'.*caf\\xe9.* is not UTF-8"):
        find_files(f"{tmp_path}/{location}", data(), "train")


def test_files_named_like_a_split_and_in_none_are_named(tmp_path: Path) -> None:
    row = '{"source": "a", "target": "b"}\n'
    (tmp_path / "data").mkdir()
    for name in ("data/train-00000-of-00001.jsonl", "train.extra.jsonl", "trained.jsonl", "x.txt"):
        (tmp_path / name).write_text(row)
    found = find_files(str(tmp_path), data(), "train")
    assert isinstance(found, Files)
    assert [Path(path).name for (path,) in found.entries] == ["train-00000-of-00001.jsonl"]
    assert [Path(path).name for path in found.passed_over] == ["train.extra.jsonl"]
    (tmp_path / "README.md").write_text("which says what belongs to the dataset\n")
    found = find_files(str(tmp_path), data(), "train")
    assert isinstance(found, Files)
    assert found.passed_over == ()
