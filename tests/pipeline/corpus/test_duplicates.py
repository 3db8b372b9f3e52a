"""Duplicates against a plain Python set, however the pairs are cut."""

from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow.fs import LocalFileSystem

from heliograph.pipeline.corpus.cleaning import CLEAN_SCHEMA
from heliograph.pipeline.corpus.duplicates import Cut, Selection, pair_hashes, without_duplicates
from heliograph.pipeline.corpus.stretches import Stretch, Workshop

Pair = tuple[str, str]

# Few different pairs, and among them some that are the same when their sides are joined.
PAIRS = st.lists(st.tuples(st.text("ab1", max_size=3), st.text("ab1", max_size=3)), max_size=40)


def table(pairs: list[Pair]) -> pa.Table:
    columns = [pa.array([pair[side] for pair in pairs], pa.string()) for side in (0, 1)]
    return pa.Table.from_arrays(columns, schema=CLEAN_SCHEMA)


def write(folder: Path, parts: list[list[Pair]], stretch_rows: int) -> list[Stretch]:
    """The parts' stretches, each part given as tables of 7 pairs and an empty one."""
    workshop = Workshop(LocalFileSystem(), str(folder), stretch_rows)
    folder.mkdir(exist_ok=True)
    stretches = []
    for number, pairs in enumerate(parts):
        cuts = [*range(0, len(pairs), 7), len(pairs), len(pairs)]
        tables = (table(pairs[start:end]) for start, end in pairwise(cuts))
        stretches += list(workshop.write_part(number, tables))
    return stretches


def read(selection: Selection, first: int, end: int) -> list[Pair]:
    rows = [row for table in selection.read(first, end) for row in table.to_pylist()]
    return [(row["source"], row["target"]) for row in rows]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(PAIRS, max_size=4),
    stretch_rows=st.integers(1, 20),
    smallest=st.integers(1, 20),
    largest=st.integers(5, 40),
    data=st.data(),
)
def test_the_first_of_equal_pairs_is_kept_in_order(
    ray_cluster: None,
    tmp_path: Path,
    parts: list[list[Pair]],
    stretch_rows: int,
    smallest: int,
    largest: int,
    data: st.DataObject,
) -> None:
    stretches = write(tmp_path / "workshop", parts, stretch_rows)
    workshop = Workshop(LocalFileSystem(), str(tmp_path / "workshop"), stretch_rows)
    pairs = [pair for part in parts for pair in part]
    everything = Selection.of_all(workshop, stretches)
    assert read(everything, 0, everything.total) == pairs
    selection = without_duplicates(workshop, stretches, Cut(3, smallest, largest))
    expected = list(dict.fromkeys(pairs))
    assert selection.total == len(expected)
    assert read(selection, 0, selection.total) == expected
    first = data.draw(st.integers(0, len(expected)))
    end = data.draw(st.integers(first, len(expected)))
    assert read(selection, first, end) == expected[first:end]


def test_stretches_are_cut_where_they_are_full(tmp_path: Path) -> None:
    pairs = [(str(i), str(i)) for i in range(20)]
    stretches = write(tmp_path, [pairs, [], pairs[:8]], stretch_rows=8)
    assert stretches == [(0, 0, 8), (0, 1, 8), (0, 2, 4), (2, 0, 8)]
    workshop = Workshop(LocalFileSystem(), str(tmp_path), 8)
    # Of the file only the row groups that hold the wanted pairs: the tables it was written from.
    tables = list(workshop.read(stretches[0], 7, 8))
    assert [each.to_pylist() for each in tables] == [[{"source": "7", "target": "7"}]]
    assert [each.num_rows for each in workshop.read(stretches[1], 1, 7)] == [5, 1]


def test_sides_do_not_run_together_in_a_hash() -> None:
    pairs = [("a", "bc"), ("ab", "c"), ("", "abc"), ("abc", ""), ("1a", "b"), ("2", "ab")]
    assert len({tuple(each) for each in pair_hashes(table(pairs)).tolist()}) == len(pairs)
    assert pair_hashes(table(pairs[:1])).tolist() == pair_hashes(table(pairs))[:1].tolist()
    assert pair_hashes(table([])).shape == (0, 2)


@pytest.mark.usefixtures("ray_cluster")
def test_a_corpus_of_one_pair_many_times(tmp_path: Path) -> None:
    pairs = [("a dog", "ein Hund")] * 1000
    stretches = write(tmp_path, [pairs, pairs], stretch_rows=300)
    workshop = Workshop(LocalFileSystem(), str(tmp_path), 300)
    selection = without_duplicates(workshop, stretches)
    assert selection.total == 1
    assert read(selection, 0, 1) == pairs[:1]
