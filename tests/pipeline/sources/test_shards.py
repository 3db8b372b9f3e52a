"""What only `datasets` opens: its shards give the rows that every other format gives."""

import json
import tarfile
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pytest

from heliograph.pipeline.request.data import Stream
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.sources.source import check_source, find_source, read_source
from tests.pipeline.pairs import PAIRS, data, good, jsonl, parquet, rows


def write_arrow(path: Path, pairs: list[tuple[str, str]]) -> None:
    table = pa.Table.from_pylist([{"translation": {"en": en, "de": de}} for en, de in pairs])
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files of datasets' own format."""
    for number, pair in enumerate(PAIRS):
        write_arrow(tmp_path / f"part-{number}.arrow", [pair] * 3)
    return tmp_path


def test_each_file_is_a_shard_and_a_part(folder: Path) -> None:
    location = Stream(stream="arrow", files=str(folder / "part-*.arrow"))
    found = find_source(location, data(), "anything")
    assert found.unbounded
    assert len(found.parts) == 3
    by_part = [
        [row["source"] for table in found.tables(part) for row in table.to_pylist()]
        for part in range(3)
    ]
    assert by_part == [[source] * 3 for source, _ in PAIRS]
    assert rows(location) == good([pair for pair in PAIRS for _ in range(3)])


def test_identity_is_json_and_follows_the_files(folder: Path) -> None:
    location = Stream(stream="arrow", files=[str(folder / "part-0.arrow")])
    first = find_source(location, data(), "train").identity
    assert json.loads(json.dumps(first)) == first
    assert find_source(location, data(), "train").identity == first
    write_arrow(folder / "part-0.arrow", PAIRS)
    assert find_source(location, data(), "train").identity != first


def test_ray_data_reads_a_shard_per_task_in_order(ray_cluster: None, folder: Path) -> None:
    location = Stream(stream="arrow", files=str(folder / "*.arrow"))
    dataset, _ = read_source(location, data(), "train")
    assert [row["source"] for row in dataset.iter_rows()] == [
        source for source, _ in PAIRS for _ in range(3)
    ]


def test_a_folder_of_a_format_not_read_here_is_streamed(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("one\ntwo\n")
    found = find_source(str(tmp_path), data(source="text", target="text"), "train")
    assert found.unbounded
    assert rows(str(tmp_path), source="text", target="text") == good([("one",) * 2, ("two",) * 2])
    assert rows(Stream(stream=str(tmp_path)), source="text", target="text") == good(
        [("one",) * 2, ("two",) * 2]
    )


def test_rows_that_come_as_python_values(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "train.tar", "w") as tar:
        for number, pair in enumerate(PAIRS):
            for side, text in zip(("en.txt", "de.txt"), pair, strict=True):
                member = tarfile.TarInfo(f"{number:03}.{side}")
                member.size = len(text.encode())
                tar.addfile(member, BytesIO(text.encode()))
    location = Stream(stream="webdataset", files=str(tmp_path / "train.tar"))
    assert rows(location, source="en.txt", target="de.txt") == good(PAIRS)


def test_nulls_cost_their_row_and_long_lines_are_read(tmp_path: Path) -> None:
    pairs = [("a", None), ("x" * 1_000_000, "b"), *PAIRS]
    (tmp_path / "a.parquet").write_bytes(parquet(pairs))
    read = rows(Stream(stream="parquet", files=str(tmp_path / "a.parquet")))
    assert read == [("a", None, "missing"), ("x" * 1_000_000, "b", None), *good(PAIRS)]


@pytest.mark.parametrize(
    ("location", "words"),
    [
        (Stream(stream="arrow"), ("'arrow' is a format", "files")),
        (Stream(stream="arrow", files="none-*.arrow"), ("none-*.arrow",)),
        (Stream(stream="no/such/thing"), ("no/such/thing", "format")),
        (Stream(stream="set"), ("set", "no split 'train'", "validation")),
        (Stream(stream="json", files="other.jsonl"), ("data.source", "'en'", "eng, ger")),
        (Stream(stream="json", files="numbers.jsonl"), ("data.source", "int64, not text")),
        (Stream(stream="json", files="cut.jsonl"), ("cut.jsonl",)),
        (Stream(stream="arrow", files="cut.arrow"), ("cut.arrow",)),
        (Stream(stream="text", files="empty.txt"), ("empty.txt", "is empty")),
    ],
)
def test_mistakes_are_answered_before_ray_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: Stream, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "validation.txt").write_text("text")
    (tmp_path / "other.jsonl").write_text('{"eng": "a", "ger": "b"}\n')
    (tmp_path / "numbers.jsonl").write_bytes(jsonl([(1, "eins")]))
    (tmp_path / "cut.jsonl").write_bytes(jsonl(PAIRS)[:-20])
    (tmp_path / "empty.txt").write_text("")
    write_arrow(tmp_path / "cut.arrow", PAIRS * 100)
    (tmp_path / "cut.arrow").write_bytes((tmp_path / "cut.arrow").read_bytes()[:2000])
    with pytest.raises(RequestError) as caught:
        check_source(find_source(location, data(), "train"))
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)
