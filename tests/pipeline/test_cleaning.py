"""Laws of cleaning, on any rows that a reader can yield."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cleaning import RATIO_MARGIN, clean, tidy
from pipeline.readers import SCHEMA

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
ROW = st.tuples(TEXT | st.none(), TEXT | st.none()) | st.just(("some text", "etwas Text"))
BREAKS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"


def table(rows: list[tuple[str | None, str | None]]) -> pa.Table:
    problems = ["missing" if None in row else None for row in rows]
    columns = [[row[0] for row in rows], [row[1] for row in rows], problems]
    return pa.Table.from_arrays([pa.array(c, pa.string()) for c in columns], schema=SCHEMA)


def reason(source: str | None, target: str | None, max_characters: int, ratio: float) -> str | None:
    """What the documentation says, one pair at a time."""
    if source is None or target is None:
        return "missing"
    shorter, longer = sorted((len(source), len(target)))
    if not shorter:
        return "empty"
    if longer > max_characters:
        return "too_long"
    if (longer + RATIO_MARGIN) / (shorter + RATIO_MARGIN) > ratio:
        return "length_ratio"
    return None


@given(st.lists(ROW), st.integers(1, 25), st.floats(1.0, 4.0))
def test_every_row_is_kept_or_counted_once(
    rows: list[tuple[str | None, str | None]], max_characters: int, ratio: float
) -> None:
    kept, dropped = clean(table(rows), max_characters, ratio)
    assert kept.num_rows + sum(dropped.values()) == len(rows)
    tidied = [tuple(tidy_one(side) for side in row) for row in rows]
    reasons = [reason(*pair, max_characters, ratio) for pair in tidied]
    expected = [pair for pair, why in zip(tidied, reasons, strict=True) if why is None]
    assert [(row["source"], row["target"]) for row in kept.to_pylist()] == expected
    assert dropped == {why: reasons.count(why) for why in reasons if why is not None}


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
