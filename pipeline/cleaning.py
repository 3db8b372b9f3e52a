"""Which pairs are used: text is tidied, pairs that cannot be used are dropped and counted.

Vectorised over Arrow tables. A pair is counted under the first reason that holds for it:

missing       a side is null, or its key is absent
not_text      a side is no string, or no valid UTF-8
empty         nothing is left of a side without the white space around it
too_long      a side has more than data.max_characters characters
length_ratio  one side has more than data.max_length_ratio times the characters of the other, ten
              added to both
"""

import pyarrow as pa
import pyarrow.compute as pc

CLEAN_SCHEMA = pa.schema([("source", pa.string()), ("target", pa.string())])
CLEANING_VERSION = 1
"""To be raised whenever the same rows would be cleaned to other pairs: it is part of cache keys."""
RATIO_MARGIN = 10
"""Characters added to both lengths, so that short pairs are not judged by a few letters."""

# All that str.splitlines breaks at: a sentence is one line wherever it is written.
_LINE_BREAKS = r"[\n\r\x0b\x0c\x1c\x1d\x1e\x{85}\x{2028}\x{2029}]+"


def clean(
    table: pa.Table, max_characters: int, max_length_ratio: float
) -> tuple[pa.Table, dict[str, int]]:
    """The usable pairs of a `readers.SCHEMA` table, tidied, and how many were dropped, by reason.

    Line breaks inside a text become one space, white space around it goes; every other character
    stays as it is, so that what a model learns is what its users typed."""
    source, target = tidy(table["source"]), tidy(table["target"])
    lengths = [pc.utf8_length(source), pc.utf8_length(target)]
    shorter, longer = pc.min_element_wise(*lengths), pc.max_element_wise(*lengths)
    ratio = pc.divide(
        pc.cast(pc.add(longer, RATIO_MARGIN), pa.float64()), pc.add(shorter, RATIO_MARGIN)
    )
    reason = pc.coalesce(
        table["problem"],
        _where(pc.equal(shorter, 0), "empty"),
        _where(pc.greater(longer, max_characters), "too_long"),
        _where(pc.greater(ratio, max_length_ratio), "length_ratio"),
    )
    kept = pa.Table.from_arrays([source, target], schema=CLEAN_SCHEMA).filter(reason.is_null())
    counts = reason.drop_null().value_counts()
    return kept, {count["values"].as_py(): count["counts"].as_py() for count in counts}


def tidy(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts without line breaks, and without white space at both ends."""
    return pc.utf8_trim_whitespace(pc.replace_substring_regex(texts, _LINE_BREAKS, " "))


def _where(condition: pa.ChunkedArray, reason: str) -> pa.ChunkedArray:
    return pc.if_else(condition, reason, pa.scalar(None, pa.string()))
