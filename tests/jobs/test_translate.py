"""Lines in, lines out: as they come, and not one more or less."""

import os
from collections.abc import Iterator
from typing import TextIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.translate import waiting_lines
from pipeline.errors import RequestError


@pytest.fixture
def pipe() -> Iterator[tuple[TextIO, TextIO]]:
    """What `producer | heliograph translate` has: an end to read and an end to write."""
    reading, writing = os.pipe()
    with (
        open(reading, encoding="utf-8", newline="\n") as reader,
        open(writing, "w", encoding="utf-8", newline="\n", errors="surrogateescape") as writer,
    ):
        yield reader, writer


def test_a_line_is_there_before_the_next_is_written(pipe: tuple[TextIO, TextIO]) -> None:
    reader, writer = pipe
    lines = waiting_lines(reader)
    for line in ("one", "", "three"):
        writer.write(line + "\n")
        writer.flush()
        assert next(lines) == [line]
    writer.close()
    assert list(lines) == []


def test_a_file_comes_in_large_batches(pipe: tuple[TextIO, TextIO]) -> None:
    reader, writer = pipe
    expected = [str(number) for number in range(5000)]
    writer.write("\n".join(expected))  # 24 kB fit into a pipe
    writer.close()
    batches = list(waiting_lines(reader, at_most=100))
    assert [line for batch in batches for line in batch] == expected
    assert max(map(len, batches)) <= 100
    assert len(batches) < 1000, "many lines a batch, but for the first few"


def test_what_is_not_utf_8_is_refused_after_the_lines_before(
    pipe: tuple[TextIO, TextIO],
) -> None:
    reader, writer = pipe
    lines = waiting_lines(reader)
    writer.write("one\n")
    writer.flush()
    assert next(lines) == ["one"]
    writer.write("\udcff\n")
    writer.close()
    with pytest.raises(RequestError, match="not UTF-8 after line 1"):
        next(lines)


# No surrogates, which are not text, and no line ends, which are what separates.
line = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=8)


@given(st.lists(line, max_size=20))
def test_only_line_feeds_separate_lines(written: list[str]) -> None:
    """U+2028 and its like are part of a sentence; a carriage return before the end is Windows'."""
    reading, writing = os.pipe()
    with open(writing, "w", encoding="utf-8", newline="\n") as writer:
        writer.writelines(f"{line}\r\n" for line in written)
    with open(reading, encoding="utf-8", newline="\n") as reader:
        assert [line for batch in waiting_lines(reader) for line in batch] == written
