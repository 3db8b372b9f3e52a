"""Laws of cleaning, on any rows that a reader can yield, and where reading ends."""

import unicodedata
from collections.abc import Iterator
from itertools import chain, repeat
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliograph.pipeline.corpus.cleaning import (
    HOPELESS_ROWS,
    NORMALIZED,
    RATIO_MARGIN,
    SEEN,
    Form,
    Limit,
    count,
    judge,
    judge_part,
    kept,
    surely_positions,
    tidy,
)
from heliograph.pipeline.request.data import Data
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.sources.rows import SCHEMA
from heliograph.pipeline.steps.tokenizer import Tokenizer

Row = tuple[str | None, str | None]

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.text(
    "aä\u0308ﬁ①\u212b \n", max_size=8
)
ROW = st.tuples(TEXT | st.none(), TEXT | st.none()) | TEXT.map(lambda text: (text, text))
BREAKS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"


def data(**values: Any) -> Data:
    return Data(train="-", validation="-", **values)


def table(rows: list[Row]) -> pa.Table:
    problems = ["missing" if None in row else None for row in rows]
    columns = [[row[0] for row in rows], [row[1] for row in rows], problems]
    return pa.Table.from_arrays([pa.array(c, pa.string()) for c in columns], schema=SCHEMA)


def pairs_of(cleaned: pa.Table) -> list[Row]:
    return [(row["source"], row["target"]) for row in cleaned.to_pylist()]


def reason(source: str | None, target: str | None, options: Data) -> str | None:
    """What the documentation says, one pair at a time."""
    if source is None or target is None:
        return "missing"
    shorter, longer = sorted((len(source), len(target)))
    if not shorter:
        return "empty"
    if longer > options.max_characters:
        return "too_long"
    if (longer + RATIO_MARGIN) / (shorter + RATIO_MARGIN) > options.max_length_ratio:
        return "length_ratio"
    return "identical" if options.drop_identical and source == target else None


@given(
    st.lists(ROW),
    st.integers(1, 25),
    st.floats(1.0, 4.0),
    st.booleans(),
    st.sampled_from([None, "NFC", "NFKC"]),
)
def test_every_row_is_kept_or_counted_once(
    rows: list[Row], max_characters: int, ratio: float, drop_identical: bool, form: Form | None
) -> None:
    options = data(
        max_characters=max_characters,
        max_length_ratio=ratio,
        drop_identical=drop_identical,
        unicode=form,
    )
    judged = judge(table(rows), options)
    assert judged.num_rows == len(rows)
    normal = [
        tuple(side and form and unicodedata.normalize(form, side) for side in r) for r in rows
    ]
    after = normal if form else rows
    tidied = [(tidy_one(row[0]), tidy_one(row[1])) for row in after]
    reasons = [reason(*pair, options) for pair in tidied]
    used = [i for i, why in enumerate(reasons) if why is None]
    assert pairs_of(kept(judged)) == [tidied[i] for i in used]
    expected = {why: reasons.count(why) for why in reasons if why is not None}
    expected[SEEN] = len(rows)
    expected[NORMALIZED] = sum(after[i] != rows[i] for i in used)
    assert count(judged) == expected


def tidy_one(text: str | None) -> str | None:
    [tidied] = tidy(pa.chunked_array([pa.array([text], pa.string())])).to_pylist()
    return tidied


@given(TEXT)
def test_tidy_text_is_one_line_and_stays_as_it_is(text: str) -> None:
    tidied = tidy_one(text)
    assert tidied is not None
    assert not set(tidied) & set(BREAKS)
    assert tidied == tidied.strip(" \t")
    assert tidy_one(tidied) == tidied
    # Nothing but line breaks and outer white space is touched.
    assert "".join(tidied.split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  a dog\t\n", "a dog"),
        ("a\r\ndog\u2028barks", "a dog barks"),
        ("two  spaces stay", "two  spaces stay"),
        ("e\u0301 stays decomposed", "e\u0301 stays decomposed"),
        ("\u00a0\u3000a dog\u00a0", "a dog"),
        ("\n\x85 ", ""),
    ],
)
def test_tidy_examples(text: str, expected: str) -> None:
    assert tidy_one(text) == expected


def test_text_is_normalized_before_it_is_judged() -> None:
    rows: list[Row] = [("e\u0301" * 9, "b"), ("①", "1"), ("\u3000", "x"), ("ﬁne", "fein")]
    limits = {"max_characters": 9, "drop_identical": True}
    plain = count(judge(table(rows), data(**limits)))
    assert plain == {"too_long": 1, "empty": 1, SEEN: 4, NORMALIZED: 0}
    composed = judge(table(rows), data(unicode="NFC", **limits))
    assert count(composed) == {"empty": 1, SEEN: 4, NORMALIZED: 1}
    assert pairs_of(kept(composed))[0] == ("é" * 9, "b")
    compatible = judge(table(rows), data(unicode="NFKC", **limits))
    assert count(compatible) == {"empty": 1, "identical": 1, SEEN: 4, NORMALIZED: 2}
    assert pairs_of(kept(compatible)) == [("é" * 9, "b"), ("fine", "fein")]


def test_a_line_of_a_megabyte_is_too_long_and_nothing_worse() -> None:
    judged = judge(table([("a " * 500_000, "b"), ("a dog", "ein Hund")]), data())
    assert judged["reason"].to_pylist() == ["too_long", None]


# --- How far a corpus is read -------------------------------------------------------------------


@given(st.integers(0, 1000), st.integers(1, 20))
def test_shares_are_even_and_sum_up_to_the_limit(whole: int, parts: int) -> None:
    shares = [Limit(whole, whole).share(part, parts) for part in range(parts)]
    rows = [share.rows or 0 for share in shares]
    assert sum(rows) == whole
    assert max(rows) - min(rows) <= 1
    assert {share.positions for share in shares} == {-(-whole // parts)}
    assert Limit().share(0, parts) == Limit()


class Endless:
    """Tables without end, that know how many were taken and whether they were closed."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows, self.taken, self.closed = rows, 0, False

    def tables(self) -> Iterator[pa.Table]:
        try:
            for each in repeat(table(self.rows)):
                self.taken += 1
                yield each
        finally:
            self.closed = True


GOOD: Row = ("a b c", "d e")
"""Surely 4 positions."""


@pytest.mark.parametrize(
    ("limit", "rows", "taken"),
    [
        (Limit(rows=7), 7, 3),
        (Limit(rows=6), 6, 2),
        (Limit(rows=0), 0, 0),
        (Limit(positions=20), 7, 3),
        (Limit(positions=21), 9, 3),
        (Limit(positions=1), 1, 1),
        (Limit(rows=5, positions=20), 5, 2),
        (Limit(rows=9, positions=20), 7, 3),
    ],
)
def test_an_endless_part_is_read_to_its_limit_and_closed(
    limit: Limit, rows: int, taken: int
) -> None:
    endless = Endless([GOOD, (None, "dropped, so that it holds no positions"), GOOD])
    tables = list(judge_part(endless.tables(), data(), limit, "part"))
    assert sum(each.num_rows for each in tables) == rows
    assert endless.taken == taken
    assert endless.closed == (taken > 0)


def test_a_part_that_ends_is_read_to_its_end_and_closed() -> None:
    tables = (table(rows) for rows in ([GOOD], [], [GOOD, GOOD]))
    judged = list(judge_part(tables, data(), Limit(100, 100), "part"))
    assert sum(each.num_rows for each in judged) == 3
    assert tables.gi_frame is None


@given(st.lists(st.lists(ROW, max_size=6), max_size=6), st.integers(1, 60), st.integers(1, 5))
def test_the_limit_does_not_depend_on_how_rows_come_in_tables(
    tables: list[list[Row]], positions: int, size: int
) -> None:
    rows = list(chain.from_iterable(tables))
    other = [rows[start : start + size] for start in range(0, len(rows), size)]
    results = []
    for cut in (tables, other):
        limited = judge_part(iter(table(r) for r in cut), data(), Limit(None, positions), "part")
        results.append([row for judged in limited for row in judged.to_pylist()])
    assert results[0] == results[1]
    judged = judge(table(rows), data())
    holds = surely_positions(judged)
    read = len(results[0])
    assert read == len(rows) or holds[:read].sum() >= positions
    assert read == 0 or holds[: read - 1].sum() < positions


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1))
def test_no_pair_has_fewer_tokens_than_is_sure(
    tiny_tokenizer: Tokenizer, rows: list[tuple[str, str]]
) -> None:
    judged = judge(table(list(rows)), data(max_length_ratio=1000.0))
    lengths = [
        [len(ids) for ids in tiny_tokenizer.encode_batch(judged[side].to_pylist())]
        for side in ("source", "target")
    ]
    for sure, source, target in zip(surely_positions(judged), *lengths, strict=True):
        assert sure <= max(source, target) + 1


def test_an_endless_part_without_a_usable_pair_is_given_up() -> None:
    endless = Endless([(None, "x"), ("", "x")] * 5_000)
    with pytest.raises(RequestError, match=r"'shard-3': none of the first 100000 pairs .*missing"):
        list(judge_part(endless.tables(), data(), Limit(None, 10), "shard-3"))
    assert endless.closed
    assert endless.taken * 10_000 == HOPELESS_ROWS
