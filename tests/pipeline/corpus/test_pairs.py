"""Evaluation sets that are read without Ray: the same pairs as a corpus of them has."""

from pathlib import Path

import pytest

from heliograph.pipeline.corpus.pairs import read_pairs
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.sources.source import find_source
from tests.pipeline.written_corpus import PAIRS, data, prepare, write

UNTIDY = [(" two\nlines ", "zwei Zeilen"), (None, "nichts"), (17, "Zahl"), ("ü", "Ü" * 900)]


@pytest.mark.usefixtures("ray_cluster")
def test_they_are_those_of_a_corpus(tmp_path: Path, storage: str) -> None:
    write(tmp_path / "one.jsonl", [*PAIRS[:3000], *UNTIDY])
    write(tmp_path / "two.jsonl", PAIRS[3000:])
    location = str(tmp_path / "*.jsonl")
    for options in (data(), data(max_rows=17), data(unicode="NFC", drop_identical=True)):
        pairs = read_pairs(find_source(location, options, "train"), options)
        assert pairs == prepare(location, options, 128, storage).head(None)
        assert len(pairs) in (17, 6001)


@pytest.mark.parametrize("rows", [[], [(None, "nichts")], [PAIRS[0], *UNTIDY[1:]]])
def test_too_little_of_them_is_an_error(tmp_path: Path, rows: list[tuple[object, object]]) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text("")
    if rows:
        write(path, rows)
    options = data(max_dropped_share=0.5)
    with pytest.raises(RequestError, match=r"pairs\.jsonl' is empty|can be used|cannot be used"):
        read_pairs(find_source(str(path), options, "train"), options)
