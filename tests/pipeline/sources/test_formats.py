"""Every format gives the same rows, and a bad value costs only its row."""

import gzip
import io
import json
import os
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from heliograph.pipeline.request.data import PairOfFiles
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.sources.lines import LONGEST_LINE, LoneReturns
from heliograph.pipeline.sources.source import find_source
from tests.pipeline.pairs import CSV, FORMATS, PAIRS, TSV, Row, data, good, jsonl, parquet, rows


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


# --- Bad files: each has its own outcome --------------------------------------------------------


def arrow(pairs: list[tuple[Any, Any]], rows_of_batch: int = 100) -> bytes:
    table = pa.Table.from_pylist([{"en": en, "de": de} for en, de in pairs])
    with pa.ipc.new_stream(sink := io.BytesIO(), table.schema) as writer:
        writer.write_table(table, max_chunksize=rows_of_batch)
    return sink.getvalue()


def packed(content: bytes, codec: str) -> bytes:
    with pa.CompressedOutputStream(sink := pa.BufferOutputStream(), codec) as file:
        file.write(content)
    return bytes(sink.getvalue())


def many_pairs() -> list[tuple[str, str]]:
    draw = random.Random(0)
    return [(f"{i} {draw.getrandbits(200):x}", f"{draw.getrandbits(200):x}") for i in range(3000)]


MANY = jsonl(many_pairs())
WHOLE = {
    "a.parquet": parquet(many_pairs(), groups=1000),
    "a.arrow": arrow(many_pairs()),
    "a.jsonl": MANY,
    "a.jsonl.gz": packed(MANY, "gzip"),
    "a.jsonl.bz2": packed(MANY, "bz2"),
    "a.jsonl.zst": packed(MANY, "zstd"),
    "a.jsonl.lz4": packed(MANY, "lz4"),
    "a.csv.gz": packed(b"en,de\n" + b"word,wort\n" * 100_000, "gzip"),
}


def read_all(path: Path, **values: Any) -> list[Row]:
    """As `rows`, without the check before."""
    found = find_source(str(path), data(**values), "train")
    tables = [table for part in range(len(found.parts)) for table in found.tables(part)]
    return [tuple(row.values()) for table in tables for row in table.to_pylist()]


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_file_cut_off_in_the_middle(tmp_path: Path, name: str, share: float) -> None:
    (tmp_path / name).write_bytes(WHOLE[name])
    assert read_all(tmp_path / name)
    (tmp_path / name).write_bytes(WHOLE[name][: int(len(WHOLE[name]) * share)])
    with pytest.raises(RequestError) as caught:
        read_all(tmp_path / name)
    assert name in str(caught.value)
    assert "cut off" in str(caught.value)
    assert "download or write it again" in str(caught.value)


@pytest.mark.parametrize("name", list(WHOLE))
def test_a_file_damaged_in_the_middle(tmp_path: Path, name: str) -> None:
    """Behind an intact beginning and end, as where a download was resumed in the wrong place."""
    content = bytearray(WHOLE[name])
    middle = len(content) // 2
    content[middle : middle + 5000] = bytes(5000)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RequestError) as caught:
        read_all(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parquet_pages_that_are_gone_behind_an_intact_footer(tmp_path: Path) -> None:
    content = WHOLE["a.parquet"]
    footer = int.from_bytes(content[-8:-4], "little") + 8
    for kept in (4, 20_000):
        (tmp_path / "a.parquet").write_bytes(content[:kept] + content[-footer:])
        with pytest.raises(RequestError, match=r"a\.parquet.*damaged.*again"):
            read_all(tmp_path / "a.parquet")


def test_arrow_files_of_both_kinds(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([{"translation": {"en": en, "de": de}} for en, de in PAIRS])
    with pa.ipc.new_file(tmp_path / "file.arrow", table.schema) as writer:
        writer.write_table(table)
    (tmp_path / "stream.arrow").write_bytes(arrow([*PAIRS, (None, "x")]))
    assert rows(str(tmp_path / "file.arrow")) == good(PAIRS)
    assert rows(str(tmp_path / "stream.arrow")) == [*good(PAIRS), (None, "x", "missing")]
    (tmp_path / "numbers.arrow").write_bytes(arrow([(1, "eins")]))
    with pytest.raises(RequestError, match=r"data\.source: 'en' of .*numbers\.arrow' holds int64"):
        rows(str(tmp_path / "numbers.arrow"))


LONG = "x" * 1_000_000


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", jsonl([*PAIRS, (LONG, "kurz"), *PAIRS])),
        ("a.csv", CSV + f"kurz,4,{LONG}\n".encode() + CSV.split(b"\n", 1)[1]),
        ("a.tsv", TSV + f"{LONG}\tkurz\n".encode() + TSV.split(b"\n", 1)[1]),
        ("a.tsv.gz", gzip.compress(TSV + f"{LONG}\tkurz\n".encode() + TSV.split(b"\n", 1)[1])),
        ("a.parquet", parquet([*PAIRS, (LONG, "kurz"), *PAIRS])),
        ("a.arrow", arrow([*PAIRS, (LONG, "kurz"), *PAIRS])),
    ],
)
def test_a_line_of_a_megabyte_is_read(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert rows(str(tmp_path / name)) == good([*PAIRS, (LONG, "kurz"), *PAIRS])


def test_a_line_of_a_megabyte_in_a_pair_of_files(tmp_path: Path) -> None:
    sides = {"en": [LONG, "b", "c"], "de": ["a", "b", LONG]}
    for side, lines in sides.items():
        (tmp_path / side).write_text("\n".join(lines) + "\n")
    read = rows(PairOfFiles(source=str(tmp_path / "en"), target=str(tmp_path / "de")))
    assert [(a.strip(), b.strip()) for a, b, _ in read if a and b] == list(
        zip(*sides.values(), strict=True)
    )


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv", "a.csv.gz"])
def test_a_line_without_end_is_refused(tmp_path: Path, name: str) -> None:
    line = b"x" * (2 * LONGEST_LINE + 1)
    begin = {"a.jsonl": jsonl(PAIRS[:1]), "a.tsv": b"en\tde\n", "a.csv": b"en,de\n"}
    content = begin.get(name, b"en,de\n") + line
    (tmp_path / name).write_bytes(gzip.compress(content, 1) if name.endswith("gz") else content)
    with pytest.raises(RequestError, match=rf"{name}' line 2 is longer than 16 MiB"):
        read_all(tmp_path / name)


def test_a_quotation_that_never_ends_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'en,de\n"x,y\n' + b"some words,more\n" * 3_000_000)
    with pytest.raises(RequestError, match=r"a\.csv.*quotation mark never closed"):
        read_all(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("name", "good_file", "empty"),
    [
        ("jsonl", jsonl(PAIRS), b""),
        ("csv", CSV, b""),
        ("csv", CSV, b"de,id,en\n"),
        ("tsv", TSV, b""),
        ("jsonl.gz", gzip.compress(jsonl(PAIRS)), b""),
        ("csv.gz", gzip.compress(CSV), gzip.compress(b"")),
        ("parquet", parquet(PAIRS), parquet(PAIRS, groups=10)),
        ("arrow", arrow(PAIRS), b""),
    ],
)
def test_an_empty_file_among_good_ones(
    tmp_path: Path, name: str, good_file: bytes, empty: bytes
) -> None:
    if name in ("parquet", "arrow"):  # of these an empty file has a schema
        table = pa.schema([("en", pa.string()), ("de", pa.string())]).empty_table()
        pq.write_table(table, sink := io.BytesIO())
        with pa.ipc.new_stream(stream := io.BytesIO(), table.schema):
            pass
        empty = (sink if name == "parquet" else stream).getvalue()
    for number, content in enumerate((good_file, empty, good_file)):
        (tmp_path / f"{number}.{name}").write_bytes(content)
    assert rows(str(tmp_path / f"*.{name}")) == good(PAIRS * 2)


def test_ragged_rows_are_counted_and_the_others_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"en,de\na,b\nonly one\nx,y,z\nc,d\n")
    (tmp_path / "a.tsv").write_bytes(b"en\tde\na\tb\nonly one\nx\ty\tz\nc\td\n")
    ragged: Row = (None, None, "ragged")
    for name in ("a.csv", "a.tsv"):
        assert rows(str(tmp_path / name)) == [("a", "b", None), ("c", "d", None), ragged, ragged]
    (tmp_path / "a.csv").write_bytes(b"en,de\nonly one\n")
    assert rows(str(tmp_path / "a.csv")) == [ragged]


@pytest.mark.parametrize("block", [1, 2, 3, 1000])
@pytest.mark.parametrize("name", ["a.tsv", "a.csv"])
def test_a_lone_return_ends_no_row(tmp_path: Path, name: str, block: int) -> None:
    """What stands behind it was kept as a pair of its own (issue 15, 6)."""
    quoted = (b'"x\ry"', "x\ry") if name == "a.csv" else (b"x\ry", "x y")
    lines = [b"en,de", b"a,b", b"one\rhalf,c\r", b"d,e\r", quoted[0] + b",f", b"g,h\r"]
    text = b"\n".join(lines)
    path = tmp_path / name
    path.write_bytes(text.replace(b",", b"\t") if name == "a.tsv" else text)
    expected = [("a", "b"), ("one half", "c"), ("d", "e"), (quoted[1], "f"), ("g", "h ")]
    assert rows(str(path)) == good(expected)
    returns = LoneReturns(quotes=name == "a.csv")
    content = path.read_bytes()
    cut = [content[start : start + block] for start in range(0, len(content), block)]
    assert b"".join(map(returns, [*cut, b""])) == LoneReturns(name == "a.csv")(content) + b" "


def test_rows_that_end_in_returns_alone_are_rows(tmp_path: Path) -> None:
    (tmp_path / "old.csv").write_bytes(b"en,de\ra,b\rc,d\r")
    assert rows(str(tmp_path / "old.csv")) == good([("a", "b"), ("c", "d")])


def test_json_too_deep_or_with_numbers_too_long_is_said_by_line(tmp_path: Path) -> None:
    for value in (b"[" * 100_000 + b"]" * 100_000, b"1" * 10_000):
        (tmp_path / "a.jsonl").write_bytes(jsonl(PAIRS) + b'{"en": ' + value + b"}\n")
        with pytest.raises(RequestError, match=r"a\.jsonl' line 4 is not JSON"):
            read_all(tmp_path / "a.jsonl")


def test_a_file_that_may_not_be_opened_is_not_called_damaged(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(jsonl(PAIRS))
    found = find_source(str(tmp_path / "a.jsonl"), data(), "train")
    os.remove(tmp_path / "a.jsonl")
    with pytest.raises(RequestError, match=r"a\.jsonl' cannot be read: .*[Nn]o such file"):
        list(found.tables(0))


@pytest.mark.parametrize("closed", [False, True])
def test_a_stray_quotation_mark_is_said(tmp_path: Path, closed: bool) -> None:
    """All up to the next one were a single row (issue 15, 6)."""
    lines = ["en,de", *(f"a {number},b {number}" for number in range(400))]
    lines[100] = '"a 99,b 99'
    if closed:
        lines[300] = 'a 299",b 299'
    path = tmp_path / "pairs.csv"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(RequestError, match=r"quotation mark .*never closed"):
        rows(str(path))


def test_cells_of_a_few_lines_are_cells(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text('en,de\n"a\nb\nc\nd\ne","f"\n')
    assert rows(str(path)) == good([("a\nb\nc\nd\ne", "f")])


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([{"en": "a", "de": "b"}]),
        json.dumps([{"en": "a", "de": "b"}], indent=2),
        json.dumps({"data": [{"en": "a", "de": "b"}]}, indent=2),
    ],
)
def test_json_that_is_no_lines_is_told_from_damage(tmp_path: Path, text: str) -> None:
    (tmp_path / "pairs.json").write_text(text)
    with pytest.raises(RequestError, match=r"one JSON value; .* an object on each line.*jq -c"):
        rows(str(tmp_path / "pairs.json"))


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_other_encodings_are_named(tmp_path: Path, name: str, encoding: str) -> None:
    content = '{"en": "a", "de": "b"}' if name == "a.jsonl" else "en\tde\na\tb"
    (tmp_path / name).write_bytes(content.encode(encoding))
    with pytest.raises(RequestError, match=f"is {encoding.upper()}, and what is read is UTF-8"):
        rows(str(tmp_path / name))
