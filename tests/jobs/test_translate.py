"""Lines in, lines out: as they come, and not one more or less; and what the options say."""

import io
import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TextIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliograph.jobs.translate import describe_done, waiting_lines
from heliograph.pipeline.request.data import PairOfFiles, Stream
from heliograph.pipeline.request.decoding import Bulk, Evaluate, Sampling
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.request.recipe_file import parse_bulk, parse_decoding, parse_location


@pytest.fixture
def pipe() -> Iterator[tuple[BinaryIO, TextIO]]:
    """What `producer | heliograph translate` has: an end to read and an end to write."""
    reading, writing = os.pipe()
    with (
        open(reading, "rb") as reader,
        open(writing, "w", encoding="utf-8", newline="\n", errors="surrogateescape") as writer,
    ):
        yield reader, writer


def test_a_line_is_there_before_the_next_is_written(pipe: tuple[BinaryIO, TextIO]) -> None:
    reader, writer = pipe
    lines = waiting_lines(reader, 2000)
    for line in ("one", "", "three"):
        writer.write(line + "\n")
        writer.flush()
        assert next(lines) == [line]
    writer.close()
    assert list(lines) == []


def test_a_file_comes_in_large_batches(pipe: tuple[BinaryIO, TextIO]) -> None:
    reader, writer = pipe
    expected = [str(number) for number in range(5000)]
    writer.write("\n".join(expected))  # 24 kB fit into a pipe
    writer.close()
    batches = list(waiting_lines(reader, 2000, at_most=100))
    assert [line for batch in batches for line in batch] == expected
    assert max(map(len, batches)) <= 100
    assert len(batches) < 1000, "many lines a batch, but for the first few"


def test_what_is_not_utf_8_is_refused_after_the_lines_before(
    pipe: tuple[BinaryIO, TextIO],
) -> None:
    reader, writer = pipe
    writer.write("one\ntwo\n\udcff\nfour\n")
    writer.close()
    lines = waiting_lines(reader, 2000)
    given = next(lines)
    while len(given) < 2:
        given += next(lines)
    assert given == ["one", "two"]
    with pytest.raises(RequestError, match="line 3 of standard input is not UTF-8"):
        next(lines)


def refused(lines: Iterator[list[str]]) -> str:
    """What is said when the lines end."""
    with pytest.raises(RequestError) as error:
        for _ in lines:
            pass
    return str(error.value)


@pytest.mark.parametrize("ends", ["\n", ""])
def test_a_line_that_is_too_long_is_refused_before_it_fills_the_memory(
    tmp_path: Path, ends: str
) -> None:
    """One of 1 MB took attention of a million million numbers (issue 17, point 8)."""
    path = tmp_path / "lines"
    path.write_text("one\n" + "é" * 1_000_000 + ends, encoding="utf-8")
    tracemalloc.start()
    try:
        with path.open("rb") as file:
            assert refused(waiting_lines(file, 2000)).startswith(
                "line 2 of standard input has more than 2,000 characters"
            )
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()


def test_as_long_as_it_may_be_a_line_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    for character in ("a", "é", "語", "🙂"):
        path.write_text(f"{character * 50}\r\n{character * 51}", encoding="utf-8")
        with path.open("rb") as file:
            lines = waiting_lines(file, 50)
            assert next(lines) == [character * 50]
            assert "more than 50 characters" in refused(lines)


def test_what_cannot_be_read_ends_with_an_error_and_not_never() -> None:
    """The thread that reads ended, and the command waited for it (issue 17, point 8)."""

    class Broken(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:  # noqa: ARG002
            raise OSError(5, "Input/output error")

    assert refused(waiting_lines(Broken(), 2000)) == (
        "line 1 of standard input cannot be read: [Errno 5] Input/output error"
    )


# No surrogates, which are not text, and no line ends, which are what separates.
line = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=8)


@given(st.lists(line, max_size=20))
def test_only_line_feeds_separate_lines(written: list[str]) -> None:
    """U+2028 and its like are part of a sentence; a carriage return before the end is Windows'."""
    reading, writing = os.pipe()
    with open(writing, "w", encoding="utf-8", newline="\n") as writer:
        writer.writelines(f"{line}\r\n" for line in written)
    with open(reading, "rb") as reader:
        assert [line for batch in waiting_lines(reader, 2000) for line in batch] == written


def test_decoding_is_the_model_s_own_but_for_what_is_said() -> None:
    settings = parse_decoding(Evaluate(beam=7, length_penalty=0.6), ["n_best=3", "beam=4"])
    assert (settings.beam, settings.n_best, settings.length_penalty) == (4, 3, 0.6)
    drawn = parse_decoding(Evaluate(), ["sampling.top_k=10"])
    assert drawn.sampling == Sampling(top_k=10)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("baem=1", "baem: unknown key; did you mean 'beam'?"),
        ("sampling.topk=1", r"sampling\.topk: unknown key; did you mean 'top_k'?"),
        ("beam=0", "beam: 0: input should be greater than or equal to 1"),
        ("n_best=9", "n_best 9 must be at most beam=5"),
        ("beam", "'beam' must read key.path=value"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_valid(override: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        parse_decoding(Evaluate(), [override])


def test_before_the_model_is_known_only_what_it_cannot_make_right_is_wrong() -> None:
    parse_decoding(None, ["n_best=9"])
    with pytest.raises(RequestError, match="beam: 0"):
        parse_decoding(None, ["beam=0"])


def test_locations_are_paths_or_yaml() -> None:
    assert parse_location("--data", "*.jsonl") == "*.jsonl"  # which YAML would take for an alias
    assert parse_location("--data", "[a.csv, b.csv]") == ["a.csv", "b.csv"]
    assert parse_location("--data", "{source: a, target: b}") == PairOfFiles(source="a", target="b")
    assert parse_location("--data", "{stream: text, files: a}") == Stream(stream="text", files="a")
    for wrong in ("{source: a}", "[1]", "{source"):
        with pytest.raises(RequestError, match="must be a name or path"):
            parse_location("--data", wrong)


def test_options_that_are_not_given_have_the_recipe_s_defaults() -> None:
    assert parse_bulk({"part_rows": None, "prefix": ""}) == Bulk()
    with pytest.raises(RequestError, match="part_rows: 0: input should be"):
        parse_bulk({"part_rows": 0})


def test_the_answer_says_what_has_no_translation() -> None:
    done = {"rows": 10, "failed": {"missing": 2, "too_long": 1}, "parts": 2, "output": "out"}
    expected = "10 rows in 2 files in out; without a translation: missing 2, too_long 1"
    assert describe_done(done) == expected
    assert describe_done(done | {"failed": {}}) == "10 rows in 2 files in out"
