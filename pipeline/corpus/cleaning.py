"""Which pairs are used: text is tidied, pairs that cannot be used are dropped and counted.

Vectorised over Arrow tables. A pair is counted under the first reason that holds for it:

missing       a side is null, or its key is absent
not_text      a side is no string, or no valid UTF-8
ragged        its line has another number of cells than the file's other lines
empty         nothing is left of a side without the white space around it
too_long      a side has more than data.max_characters characters
length_ratio  one side has more than data.max_length_ratio times the characters of the other, ten
              added to both
identical     both sides are the same text, if data.drop_identical is set
duplicate     the corpus has the same pair before, if data.drop_duplicates is set (`duplicates`)

Text is brought to the normal form of data.unicode before anything is judged; pairs that this
changes are kept, and counted under `NORMALIZED`.
"""

import unicodedata
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Literal, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from heliograph.pipeline.request.data import Data
from heliograph.pipeline.request.errors import RequestError

Form = Literal["NFC", "NFKC"]

CLEAN_SCHEMA = pa.schema([("source", pa.string()), ("target", pa.string())])
JUDGED_SCHEMA = pa.schema([*CLEAN_SCHEMA, ("reason", pa.string()), ("normalized", pa.bool_())])
"""A row for each of the source's: the tidied text, why it is dropped (null: it is kept), and
whether data.unicode changed it."""
CLEANING_VERSION = 2
"""To be raised whenever the same rows would be cleaned to other pairs: it is part of cache keys."""
CLEANING_OPTIONS = {"unicode", "drop_identical", "max_characters", "max_length_ratio"}
"""The keys of `data` that say which pairs of a part are kept, and how."""
RATIO_MARGIN = 10
"""Characters added to both lengths, so that short pairs are not judged by a few letters."""
SEEN, NORMALIZED = "seen", "normalized"
"""Keys of `count` that are no reasons: all rows; those kept here that data.unicode changed."""
HOPELESS_ROWS = 100_000
"""An endless part is given up when not one of so many rows could be used."""

# All that str.splitlines breaks at: a sentence is one line wherever it is written.
_LINE_BREAKS = r"[\n\r\x0b\x0c\x1c\x1d\x1e\x{85}\x{2028}\x{2029}]+"


def judge(table: pa.Table, data: Data) -> pa.Table:
    """A `rows.SCHEMA` table's rows, tidied and judged: JUDGED_SCHEMA.

    Line breaks inside a text become one space, white space around it goes; every other character
    stays as it is, so that what a model learns is what its users typed."""
    sides = [table["source"], table["target"]]
    if data.unicode is None:
        normalized = pa.chunked_array([pa.nulls(table.num_rows, pa.bool_())])
    else:
        raw, sides = sides, [normalize(side, data.unicode) for side in sides]
        normalized = pc.or_(*map(pc.not_equal, raw, sides))
    source, target = map(tidy, sides)
    lengths = [pc.utf8_length(source), pc.utf8_length(target)]
    shorter, longer = pc.min_element_wise(*lengths), pc.max_element_wise(*lengths)
    ratio = pc.divide(
        pc.cast(pc.add(longer, RATIO_MARGIN), pa.float64()), pc.add(shorter, RATIO_MARGIN)
    )
    reason = pc.coalesce(
        table["problem"],
        _where(pc.equal(shorter, 0), "empty"),
        _where(pc.greater(longer, data.max_characters), "too_long"),
        _where(pc.greater(ratio, data.max_length_ratio), "length_ratio"),
        _where(pc.and_(data.drop_identical, pc.equal(source, target)), "identical"),
    )
    return pa.Table.from_arrays([source, target, reason, normalized], schema=JUDGED_SCHEMA)


def kept(judged: pa.Table) -> pa.Table:
    """The pairs to be used: CLEAN_SCHEMA."""
    return judged.filter(judged["reason"].is_null()).select(CLEAN_SCHEMA.names)


def count(judged: pa.Table) -> Counter[str]:
    """Rows by the reason for which they are dropped; besides, SEEN and NORMALIZED."""
    reasons = judged["reason"].value_counts().to_pylist()
    counts = Counter({each["values"]: each["counts"] for each in reasons if each["values"]})
    normalized = pc.and_(judged["reason"].is_null(), judged["normalized"])
    counts.update({SEEN: judged.num_rows, NORMALIZED: pc.sum(normalized).as_py() or 0})
    return counts


def normalize(texts: pa.ChunkedArray, form: Form) -> pa.ChunkedArray:
    """Texts in this normal form. By Python: Arrow's own kernel leaves NFC and NFKC decomposed up to
    its version 25 (apache/arrow#51225), and is not faster."""
    normal = [text and unicodedata.normalize(form, text) for text in texts.to_pylist()]
    return pa.chunked_array([pa.array(normal, pa.string())])


def tidy(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts without line breaks, and without white space at both ends."""
    return pc.utf8_trim_whitespace(pc.replace_substring_regex(texts, _LINE_BREAKS, " "))


def _where(condition: pa.ChunkedArray, reason: str) -> pa.ChunkedArray:
    return pc.if_else(condition, reason, pa.scalar(None, pa.string()))


# --- How far a corpus is read -------------------------------------------------------------------


class Limit(NamedTuple):
    """Where reading ends, before the end of the data is reached; None: not before."""

    rows: int | None = None
    """So many rows were read, whether or not they can be used."""
    positions: int | None = None
    """The kept pairs surely have so many positions in the model: `surely_positions`. Duplicates
    are found later, and count here."""

    def share(self, part: int, parts: int) -> "Limit":
        """One part's even share. The shares of rows sum up to the whole exactly."""
        rows = self.rows
        if rows is not None:
            rows = rows // parts + (part < rows % parts)
        return Limit(rows, None if self.positions is None else -(-self.positions // parts))


def judge_part(
    tables: Iterator[pa.Table], data: Data, limit: Limit, name: str
) -> Iterator[pa.Table]:
    """A part's tables, judged, up to its limit: then the part is closed, be it endless.

    Raises:
        RequestError: positions are wanted, and not one of the first rows of part `name` can be
            used: reading on might never end.
    """
    rows, positions = limit
    counts: Counter[str] = Counter()
    with closing(cast(Generator[pa.Table, None, None], tables)):
        while rows != 0 and positions != 0 and (table := next(tables, None)) is not None:
            judged = judge(table.slice(0, rows), data)
            if positions is not None:
                holds = np.cumsum(surely_positions(judged))
                judged = judged.slice(0, int(np.searchsorted(holds, positions)) + 1)
                positions -= min(positions, int(holds[judged.num_rows - 1]) if len(holds) else 0)
                counts += count(judged)
                _check_hope(counts, positions == limit.positions, name)
            if rows is not None:
                rows -= judged.num_rows
            yield judged


def surely_positions(judged: pa.Table) -> NDArray[np.int64]:
    """Of each row at least how many positions its longer side has, with the one that starts or ends
    it; 0 if it is not kept.

    A word makes one token at least: pre-tokenization cuts at white space, and no token crosses a
    cut. Only ASCII white space is counted on to be some."""
    words = [pc.count_substring_regex(judged[side], r"\S+") for side in CLEAN_SCHEMA.names]
    positions = pc.add(pc.max_element_wise(*words), 1)
    used = pc.if_else(judged["reason"].is_null(), positions, 0)
    return np.asarray(used, np.int64)


def _check_hope(counts: Counter[str], nothing: bool, name: str) -> None:
    if nothing and counts[SEEN] >= HOPELESS_ROWS:
        reasons = ", ".join(
            f"{reason} {n}" for reason, n in sorted(counts.items()) if reason != SEEN
        )
        raise RequestError(
            f"{name!r}: none of the first {counts[SEEN]} pairs can be used: {reasons}"
        )


def check_losses(seen: int, dropped: dict[str, int], max_share: float, name: str) -> None:
    """That no more of a corpus was lost than may be.

    Raises:
        RequestError: nothing is left of it, or less; the message begins with its name.
    """
    lost = sum(dropped.values())
    reasons = ", ".join(f"{reason} {count}" for reason, count in dropped.items() if count)
    if not seen:
        raise RequestError(f"{name} is empty: it has no rows")
    if lost == seen:
        raise RequestError(f"{name}: none of {seen} pairs can be used: {reasons}{_hint(dropped)}")
    if lost > max_share * seen:
        raise RequestError(
            f"{name}: {lost} of {seen} pairs cannot be used ({reasons}), a share of "
            f"{lost / seen:.3f}; data.max_dropped_share allows {max_share}{_hint(dropped)}"
        )


def _hint(dropped: dict[str, int]) -> str:
    if not dropped.get("not_text"):
        return ""
    return (
        ". not_text are numbers, or bytes that are no UTF-8: of Latin-1, say, "
        "iconv -f LATIN1 -t UTF-8 FILE makes it"
    )
