"""All columns come through, whatever the format."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliograph.pipeline.request.data import Location, PairOfFiles, Stream
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.sources.source import find_source
from heliograph.pipeline.sources.survey import survey_part
from heliograph.pipeline.sources.whole_rows import joined, row_of_dicts, schema_of_dicts, storable
from tests.pipeline.pairs import data

ROWS = [
    {"en": "a dog", "de": "ein Hund", "id": "1"},
    {"en": "two cats", "de": "zwei Katzen", "id": "2"},
]


def whole_rows(location: Location, **values: Any) -> list[dict[str, Any] | None]:
    """All columns of all rows, as a translation would pass them through."""
    source = find_source(location, data(**values), "train")
    surveys = [survey_part(source, part) for part in range(len(source.parts))]
    schema = storable(joined(schema for schema, _ in surveys))
    tables = [table for part in range(len(surveys)) for table in source.tables(part, keep=schema)]
    found = [row for table in tables for row in table["row"].to_pylist()]
    assert len(found) == sum(rows for _, rows in surveys), "as many rows as were counted"
    return found


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    match path.suffix:
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        case ".arrow":
            table = pa.Table.from_pylist(rows)
            with pa.ipc.new_stream(path, table.schema) as writer:
                writer.write_table(table)
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        case _:
            mark = "\t" if path.suffix == ".tsv" else ","
            lines = [mark.join(rows[0]), *(mark.join(row.values()) for row in rows)]
            path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "jsonl", "csv", "tsv"])
def test_every_format_keeps_all_columns(suffix: str, tmp_path: Path) -> None:
    assert whole_rows(write(tmp_path / f"rows.{suffix}", ROWS)) == ROWS


def test_a_pair_of_files_has_two_columns(tmp_path: Path) -> None:
    (tmp_path / "a.en").write_text("a dog\ntwo cats\n")
    (tmp_path / "a.de").write_text("ein Hund\nzwei Katzen\n")
    pair = PairOfFiles(source=str(tmp_path / "a.en"), target=str(tmp_path / "a.de"))
    assert whole_rows(pair) == [{"source": r["en"], "target": r["de"]} for r in ROWS]


def test_a_stream_keeps_all_columns(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", ROWS)
    stream = Stream(stream="json", files=str(tmp_path / "rows.jsonl"))
    assert whole_rows(stream) == ROWS


def test_types_hold_for_all_files(tmp_path: Path) -> None:
    """A column that is missing, null, whole or fractional from one file to the next."""
    paths = [
        write(tmp_path / f"{number}.jsonl", [{"en": "a", "de": "b"} | more])
        for number, more in enumerate(
            [{}, {"x": None}, {"x": 1}, {"x": 0.5}, {"y": {"a": 1}}, {"y": {"b": "c"}}]
        )
    ]
    found = whole_rows(paths)
    assert [row["x"] for row in found if row] == [None, None, 1.0, 0.5, None, None]
    assert [row["y"] for row in found if row][4:] == [{"a": 1, "b": None}, {"a": None, "b": "c"}]


def test_values_of_no_common_type_become_text(tmp_path: Path) -> None:
    values = ["text", 7, [1], {"k": None}, True, None, 2**70, "\ud800"]
    rows = [{"en": "a", "de": "b", "x": value} for value in values]
    expected = ["text", "7", "[1]", '{"k": null}', "true", None, str(2**70), "\\ud800"]
    found = whole_rows(write(tmp_path / "rows.jsonl", rows))
    assert [row["x"] for row in found if row] == expected


def test_a_line_that_is_no_row_is_null_and_bytes_stay_visible(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(b"en,de,id\na,b,\xff\nragged,line\nc,d,2\n")
    rows = whole_rows(str(tmp_path / "rows.csv"))
    assert sorted(map(str, rows)) == sorted(
        map(
            str,
            [{"en": "a", "de": "b", "id": "\\xff"}, None, {"en": "c", "de": "d", "id": "2"}],
        )
    )


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("en,de,id,id\na,b,1,2\n")
    with pytest.raises(RequestError, match="several columns 'id'"):
        whole_rows(str(tmp_path / "rows.csv"))


# What JSON lines may hold, of one type a column.
value = st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), max_size=5))
row = st.dictionaries(
    st.sampled_from(["a", "b", "c"]), st.one_of(value, st.lists(value, max_size=2)), max_size=3
)


@given(st.lists(row, min_size=1, max_size=6))
def test_types_found_are_types_that_hold(rows: list[dict[str, Any]]) -> None:
    """Whatever the rows and wherever they are cut, Parquet holds them in the types that were found,
    and what was text is that text."""
    blocks = [rows[:2], rows[2:]]
    schema = storable(joined(schema_of_dicts(block) for block in blocks))
    sink = pa.BufferOutputStream()
    arrays = pa.chunked_array([row_of_dicts(block, schema) for block in blocks])
    pq.write_table(pa.table({"row": arrays}) if len(schema) else pa.table({}), sink)
    if len(schema):
        read = pq.read_table(pa.BufferReader(sink.getvalue()))["row"].to_pylist()
        for before, after in zip(rows, read, strict=True):
            for name, text in before.items():
                if isinstance(text, str):
                    assert after[name] == text
