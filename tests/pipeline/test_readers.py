"""Every format gives the same rows, and a bad value costs only its row."""

import gzip
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.recipe import PairOfFiles
from tests.pipeline.pairs import FORMATS, PAIRS, Row, good, rows


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(FORMATS[name])
    assert rows(str(tmp_path / name)) == good(PAIRS)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_pair_of_files_goes_line_by_line(tmp_path: Path, pack: Any) -> None:
    # U+2028 and form feeds are no line ends here, or the two sides would slip apart.
    many = [
        *PAIRS,
        ("one\u2028line\x0cstill", "eine"),
        *((f"s {i}", f"t {i}") for i in range(20_000)),
    ]
    suffix = ".gz" if pack is gzip.compress else ""
    paths = [str(tmp_path / f"text.{side}{suffix}") for side in ("en", "de")]
    for path, side, first in zip(
        paths, zip(*many, strict=True), (b"\xef\xbb\xbf", b""), strict=True
    ):
        Path(path).write_bytes(pack(first + "\n".join(side).encode()))
    read = rows(PairOfFiles(source=paths[0], target=paths[1]))
    assert [(source.strip(), target.strip()) for source, target, _ in read] == many
    assert {problem for *_, problem in read} == {None}


def test_values_that_are_no_text_are_marked_and_cost_only_their_row(tmp_path: Path) -> None:
    lines = [
        b'{"en": "good", "de": "gut"}',
        b'{"en": null, "de": "x"}',
        b'{"de": "x"}',
        b'{"en": 5, "de": "x"}',
        b'{"en": ["a"], "de": "x"}',
        b'{"en": "\\ud800", "de": "x"}',
        b'{"en": "\xff\xfe", "de": "x"}',
        b'{"en": "good", "de": "gut"}',
    ]
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(lines))
    marks = [problem for *_, problem in rows(str(tmp_path / "rows.jsonl"))]
    assert marks == [None, "missing", "missing", *["not_text"] * 4, None]
    (tmp_path / "rows.csv").write_bytes(b"en,de\ngood,gut\n\xff,x\ngood,gut\n")
    assert [problem for *_, problem in rows(str(tmp_path / "rows.csv"))] == [None, "not_text", None]


def test_parquet_nulls_and_text_types(tmp_path: Path) -> None:
    translation = pa.array(
        [{"en": "a", "de": "b"}, None, {"en": None, "de": "b"}],
        pa.struct([("en", pa.large_string()), ("de", pa.string_view())]),
    )
    pq.write_table(pa.table({"translation": translation}), tmp_path / "struct.parquet")
    expected: list[Row] = [("a", "b", None), (None, None, "missing"), (None, "b", "missing")]
    assert rows(str(tmp_path / "struct.parquet")) == expected
    coded = pa.table({"en": pa.array(["x", "x", None]).dictionary_encode(), "de": pa.nulls(3)})
    pq.write_table(coded, tmp_path / "coded.parquet")
    assert [row[2] for row in rows(str(tmp_path / "coded.parquet"))] == ["missing"] * 3
