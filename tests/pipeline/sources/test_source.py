"""The stream that a location becomes, and every mistake, answered in words before Ray starts."""

import gzip
import io
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from heliograph.pipeline.corpus.found_data import find_recipe_data
from heliograph.pipeline.request.data import Data, Location, PairOfFiles
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.sources import source
from heliograph.pipeline.sources.embedded import grammar
from heliograph.pipeline.sources.source import check_source, find_source, read_source
from tests.pipeline.pairs import PAIRS, data, good, jsonl, parquet, rows


def test_a_large_parquet_file_is_read_in_several_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [(f"source {i}", f"target {i}") for i in range(1000)]
    (tmp_path / "large.parquet").write_bytes(parquet(pairs, groups=100))
    monkeypatch.setattr(source, "TASK_BYTES", 4000)
    found = find_source(str(tmp_path / "large.parquet"), data(), "train")
    assert len(found.parts) > 2
    assert [i for part in found.parts for i in part.row_groups or ()] == list(range(10))
    assert rows(str(tmp_path / "large.parquet")) == good(pairs)


def test_the_embedded_corpus_is_a_source() -> None:
    assert rows("embedded:validation") == good(grammar.pairs("validation"))


def test_identity_changes_with_the_data_and_the_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(jsonl(PAIRS))
    first = find_source(str(path), data(), "train").identity
    assert find_source(str(path), data(), "train").identity == first
    assert json.loads(json.dumps(first)) == first
    assert find_source(str(path), data(source="de"), "train").identity != first
    path.write_bytes(jsonl(PAIRS[::-1]))
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))  # a clock may not tell two writes apart
    assert find_source(str(path), data(), "train").identity != first


def test_ray_data_keeps_the_order_of_files_and_rows(ray_cluster: None, tmp_path: Path) -> None:
    import ray.data

    for number in range(12):  # the first files take longest
        pairs = [(f"{number}-{i}", "x") for i in range(3000 if number < 2 else 100)]
        (tmp_path / f"{number:02}.jsonl").write_bytes(jsonl(pairs))
    # Ray keeps one context for the whole process, which other tests' threads may have changed.
    before = ray.data.DataContext.get_current().copy()
    before.execution_options.preserve_order = False
    with ray.data.DataContext.current(before):
        dataset, identity = read_source(str(tmp_path / "*.jsonl"), data(), "train")
        assert not ray.data.DataContext.get_current().execution_options.preserve_order
    assert [row["source"] for row in dataset.iter_rows()] == [
        f"{number}-{i}" for number in range(12) for i in range(3000 if number < 2 else 100)
    ]
    assert len(identity["files"]) == 12


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ([], "data.train: the list of corpora is empty"),
        ("nope.jsonl", "data.train: 'nope.jsonl': no such file"),
        (["good.jsonl", "nope.jsonl"], "data.train: 'nope.jsonl': no such file"),
        ([{"location": "good.jsonl"}, {"location": "nope.csv"}], "data.train[1]: 'nope.csv': no"),
        ([{"location": "other.jsonl"}], "data.train[0].source: "),
        ([{"location": []}], "data.train[0]: a list of files must not be empty"),
        ({"stream": "text"}, "data.train: 'text' is a format"),
    ],
)
def test_every_corpus_of_a_recipe_is_checked_under_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, train: Any, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_bad_files(tmp_path)
    with pytest.raises(RequestError) as caught:
        find_recipe_data(data(train=train, validation="good.jsonl"), str(tmp_path))
    assert str(caught.value).startswith(words)


def test_corpora_of_a_mixture_have_columns_and_splits_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_bad_files(tmp_path)
    mixture = [
        {"location": "good.jsonl", "weight": 2},
        {"location": "other.jsonl", "source": "eng", "target": "ger"},
        {"location": "folder", "split": "validation"},
    ]
    find_recipe_data(data(train=mixture, validation="good.jsonl"), str(tmp_path))
    with pytest.raises(RequestError, match=r"^data\.validation: '\./nope': "):
        find_recipe_data(data(train=mixture, validation="./nope"), str(tmp_path))


# --- What is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("nope.jsonl", ("nope.jsonl", "no such file")),
        ("nowhere/x.parquet", ("x.parquet", "no such file", "nowhere")),
        ("*.tsv.gz", ("*.tsv.gz", "no such file")),
        (["good.jsonl", "nope.csv"], ("nope.csv",)),
        ([], ("empty",)),
        ("notes.txt", ("notes.txt", ".jsonl", ".parquet")),
        ("good.parquet.gz", ("good.parquet.gz", ".jsonl")),
        ("empty.jsonl", ("empty.jsonl", "is empty")),
        ("empty.csv", ("empty.csv",)),
        ("header.tsv", ("header.tsv", "is empty")),
        ("empty.parquet", ("empty.parquet", "is empty")),
        ("broken.parquet", ("broken.parquet", "cut off", "download or write it again")),
        ("broken.jsonl", ("broken.jsonl", "line 2")),
        ("array.json", ("array.json", "JSON lines", "jq -c")),
        ("broken.jsonl.gz", ("broken.jsonl.gz",)),
        ("numbers.parquet", ("data.source", "'en'", "int64")),
        ("other.jsonl", ("data.source", "'en'", "eng, ger", "did you mean 'eng'?")),
        ("cut.arrow", ("cut.arrow", "cut off")),
        ("other.csv", ("data.source", "'en'", "eng, ger")),
        ("other.parquet", ("data.source", "'en'", "id, translation, de (in translation)")),
        ("folder", ("folder", "validation")),
        ("embedded:tran", ("embedded:tran", "did you mean 'embedded:train'?")),
        (PairOfFiles(source="three", target="two"), ("three", "3 lines", "two", "2")),
        (PairOfFiles(source="three", target="nope"), ("nope", "no such file")),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: Location, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_bad_files(tmp_path)
    with pytest.raises(RequestError) as caught:
        check_source(find_source(location, data(), "train"))
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


def write_bad_files(folder: Path) -> None:
    contents = {
        "good.jsonl": jsonl(PAIRS),
        "good.parquet.gz": gzip.compress(parquet(PAIRS)),
        "notes.txt": b"text",
        "empty.jsonl": b"",
        "empty.csv": b"",
        "header.tsv": b"en\tde\n",
        "empty.parquet": _no_rows(),
        "broken.parquet": b"PAR1 and no more",
        "broken.jsonl": jsonl(PAIRS[:1]) + b"{nope\n",
        "cut.arrow": b"",
        "array.json": json.dumps([{"en": "a", "de": "b"}]).encode(),
        "broken.jsonl.gz": b"this was never packed",
        "numbers.parquet": parquet([(1, "eins"), (2, "zwei")]),
        "other.jsonl": b'{"eng": "a", "ger": "b"}\n',
        "other.csv": b"eng,ger\na,b\n",
        "other.parquet": _other_translation(),
        "three": b"1\n2\n3\n",
        "two": b"1\n2\n",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "folder").mkdir()
    (folder / "folder" / "validation.jsonl").write_bytes(jsonl(PAIRS))


def _no_rows() -> bytes:
    schema = pa.schema([("en", pa.string()), ("de", pa.string())])
    pq.write_table(schema.empty_table(), buffer := io.BytesIO())
    return buffer.getvalue()


def _other_translation() -> bytes:
    table = pa.table({"id": [1], "translation": [{"de": "b"}]})
    pq.write_table(table, buffer := io.BytesIO())
    return buffer.getvalue()


# --- Columns by number --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", b"1\tgood\tgut\n2\tbad\tschlecht\n3\t\xff\tx\n4\tshort\n"),
        ("a.csv", b'1,good,gut\n2,bad,schlecht\n3,\xff,x\n4,"short"\n'),
    ],
)
def test_columns_of_a_file_without_a_header_have_numbers(
    tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    numbered = Data(train="-", validation="-", columns=(2, 3))
    check_source(find_source(str(tmp_path / name), numbered, "train"))
    source = find_source(str(tmp_path / name), numbered, "train")
    rows = [row for table in source.tables(0) for row in table.to_pylist()]
    assert [(row["source"], row["target"]) for row in rows[:2]] == [
        ("good", "gut"),
        ("bad", "schlecht"),
    ]
    assert [row["problem"] for row in rows] == [None, None, "not_text", "ragged"]
    turned = find_source(str(tmp_path / name), numbered.model_copy(update={"columns": (3, 2)}), "-")
    assert turned.identity != source.identity


def test_a_pair_that_is_taken_for_a_header_is_told_how_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("good\tgut\nbad\tschlecht\n")
    with pytest.raises(RequestError, match=r"it has: good, gut\. .*data\.columns=\[1, 2\]"):
        check_source(find_source(str(tmp_path / "a.tsv"), Data(train="-", validation="-"), "train"))
    wide = Data(train="-", validation="-", columns=(1, 3))
    with pytest.raises(RequestError, match=r"data\.columns \[1, 3\]: .*a\.tsv' has 2 columns"):
        check_source(find_source(str(tmp_path / "a.tsv"), wide, "train"))


@pytest.mark.parametrize("location", ["embedded:train", "a.jsonl", "a.txt beside b.txt"])
def test_what_names_its_columns_has_no_numbers(tmp_path: Path, location: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"source": "a", "target": "b"}\n')
    (tmp_path / "a.txt").write_text("a\n")
    (tmp_path / "b.txt").write_text("b\n")
    numbered = Data(train="-", validation="-", columns=(1, 2))
    where: Location = location if ":" in location else str(tmp_path / location)
    if "beside" in location:
        where = PairOfFiles(source=str(tmp_path / "a.txt"), target=str(tmp_path / "b.txt"))
    with pytest.raises(RequestError, match=r"data\.columns \[1, 2\]: .*without a header"):
        check_source(find_source(where, numbered, "train"))
