"""The corpus on storage: the same pieces however it was read, whole or absent, found again."""

import json
import threading
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline import corpus as corpus_module
from pipeline.corpus import Corpus, prepare_corpus
from pipeline.errors import RequestError
from pipeline.recipe import Data, PairOfFiles

pytestmark = pytest.mark.usefixtures("ray_cluster")

PAIRS = [(f"source sentence {i}", f"Zielsatz Nummer {i}") for i in range(6_000)]


def data(**values: Any) -> Data:
    return Data(**{"train": "-", "validation": "-", "source": "en", "target": "de"} | values)


def write(path: Path, pairs: Sequence[tuple[Any, Any]]) -> None:
    lines = [json.dumps({"en": en, "de": de}) for en, de in pairs]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def files_in(storage: str) -> list[Path]:
    return [path for path in Path(storage).rglob("*") if path.is_file()]


@pytest.fixture
def few_rows_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several files and blocks from a corpus that is small enough for a test."""
    monkeypatch.setattr(corpus_module, "FILE_ROWS", 1_000)


def test_pieces_and_digest_do_not_depend_on_files_and_blocks(
    few_rows_a_file: None, tmp_path: Path, storage: str
) -> None:
    write(tmp_path / "one.jsonl", PAIRS)
    cuts = [0, 1, 700, 701, 2_500, 2_500, 4_099, 6_000]
    for number, (start, stop) in enumerate(pairwise(cuts)):
        write(tmp_path / f"many-{number}.jsonl", PAIRS[start:stop] or [(None, None)])
    one = prepare_corpus(str(tmp_path / "one.jsonl"), data(), "train", 128, storage)
    many = prepare_corpus(str(tmp_path / "many-*.jsonl"), data(), "train", 128, storage)
    assert one.digest == many.digest
    assert one.head(None) == many.head(None) == PAIRS
    assert len(one.files) > 3
    for corpus in (one, many):
        assert [piece.rows for piece in corpus.pieces] == [128] * 46 + [112]
        assert [piece.first_row for piece in corpus.pieces] == list(range(0, 6_000, 128))
        assert corpus.rows == 6_000
    assert (one.seen, one.dropped) == (6_000, {})
    assert (many.seen, many.dropped) == (6_001, {"missing": 1})


def test_pieces_are_row_groups_and_read_in_the_order_asked(
    few_rows_a_file: None, tmp_path: Path, storage: str
) -> None:
    write(tmp_path / "one.jsonl", PAIRS)
    corpus = prepare_corpus(str(tmp_path / "one.jsonl"), data(), "train", 128, storage)
    table = corpus.read([46, 3, 20])
    rows = [*range(5_888, 6_000), *range(384, 512), *range(2_560, 2_688)]
    assert table.schema == corpus_module.PAIR_SCHEMA
    assert table["pair"].to_pylist() == rows
    assert table["source"].to_pylist() == [PAIRS[row][0] for row in rows]
    assert table["target"].to_pylist() == [PAIRS[row][1] for row in rows]
    assert corpus.read([]).num_rows == 0
    assert corpus.head(130) == PAIRS[:130]
    assert corpus.head(10**9) == PAIRS
    groups = [
        pq.read_metadata(Path(corpus.folder) / file).num_row_groups for file, _ in corpus.files
    ]
    assert sum(groups) == len(corpus.pieces)


def test_the_digest_knows_order_sides_and_boundaries(tmp_path: Path, storage: str) -> None:
    variants = {
        "plain": [("ab", "c"), ("d", "ef")],
        "swapped rows": [("d", "ef"), ("ab", "c")],
        "swapped sides": [("c", "ab"), ("ef", "d")],
        "other boundary": [("a", "c"), ("bd", "ef")],
    }
    digests = set()
    for name, pairs in variants.items():
        write(tmp_path / f"{name}.jsonl", pairs)
        path = str(tmp_path / f"{name}.jsonl")
        digests.add(prepare_corpus(path, data(), "train", 2, storage).digest)
    assert len(digests) == len(variants)


def test_bad_rows_of_every_kind_are_counted_by_reason(tmp_path: Path, storage: str) -> None:
    bad: list[tuple[Any, Any]] = [
        (None, "x"),
        (None, None),
        (5, "x"),
        (["a"], "x"),
        ("a", {"b": 1}),
        ("", "x"),
        ("a", " \n\t\u2028 "),
        ("a" * 101, "b" * 90),
        ("a" * 95, "b"),
    ]
    rows = [row for i, one in enumerate(bad) for row in (one, *PAIRS[100 * i : 100 * i + 100])]
    write(tmp_path / "rows.jsonl", rows)
    limits = {"max_characters": 100, "max_length_ratio": 9.0}
    corpus = prepare_corpus(str(tmp_path / "rows.jsonl"), data(**limits), "train", 64, storage)
    assert corpus.dropped == {
        "missing": 2, "not_text": 3, "empty": 2, "too_long": 1, "length_ratio": 1
    }  # fmt: skip
    assert corpus.seen == len(rows) == 909
    assert corpus.head(None) == PAIRS[:900]


def test_a_corpus_that_loses_too_much_stops_with_the_reasons(tmp_path: Path, storage: str) -> None:
    write(tmp_path / "rows.jsonl", [*PAIRS[:80], *[(None, "x")] * 15, *[("", "x")] * 5])
    path = str(tmp_path / "rows.jsonl")
    with pytest.raises(RequestError, match=r"20 of 100 .*empty 5, missing 15.*max_dropped_share"):
        prepare_corpus(path, data(), "train", 64, storage)
    assert files_in(storage) == []
    assert prepare_corpus(path, data(max_dropped_share=0.2), "train", 64, storage).rows == 80
    with pytest.raises(RequestError, match="20 of 100"):  # now that it is there, too
        prepare_corpus(path, data(max_dropped_share=0.19), "train", 64, storage)


def test_a_corpus_of_which_nothing_is_left_is_an_error(tmp_path: Path, storage: str) -> None:
    write(tmp_path / "rows.jsonl", [(None, "x"), ("", "y")])
    everything = data(max_dropped_share=1.0)
    with pytest.raises(RequestError, match="none of 2 pairs can be used: empty 1, missing 1"):
        prepare_corpus(str(tmp_path / "rows.jsonl"), everything, "train", 64, storage)
    (tmp_path / "nothing.jsonl").write_text("\n\n")
    with pytest.raises(RequestError, match=r"nothing\.jsonl.*no rows"):
        prepare_corpus(str(tmp_path / "nothing.jsonl"), data(), "train", 64, storage)
    assert files_in(storage) == []


def test_what_only_a_full_reading_shows_is_said_in_words(tmp_path: Path, storage: str) -> None:
    write(tmp_path / "a.jsonl", PAIRS[:10])
    (tmp_path / "b.jsonl").write_text('{"en": "a", "de": "b"}\n{nope\n')
    with pytest.raises(RequestError) as caught:
        prepare_corpus(str(tmp_path / "*.jsonl"), data(), "train", 64, storage)
    assert "b.jsonl' line 2 is not JSON" in str(caught.value)
    assert "\n" not in str(caught.value)
    (tmp_path / "long").write_text("line\n" * 20_001)
    (tmp_path / "short").write_text("line\n" * 20_000)
    pair = PairOfFiles(source=str(tmp_path / "long"), target=str(tmp_path / "short"))
    with pytest.raises(RequestError, match=r"long' has 20001 lines and '.*short' has 20000"):
        prepare_corpus(pair, data(), "train", 64, storage)
    assert files_in(storage) == []


def test_a_prepared_corpus_is_found_again_without_reading(
    tmp_path: Path, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.jsonl"
    write(path, PAIRS[:200])
    first = prepare_corpus(str(path), data(), "train", 64, storage)
    assert Corpus.load(first.folder) == first
    with monkeypatch.context() as patch:
        patch.setattr(corpus_module, "_run", None)
        assert prepare_corpus(str(path), data(), "train", 64, storage) == first
    assert prepare_corpus(str(path), data(max_characters=99), "train", 64, storage) != first
    smaller = prepare_corpus(str(path), data(), "train", 50, storage)
    assert smaller.folder != first.folder
    assert len(smaller.pieces) == 4
    write(path, PAIRS[:100])
    assert prepare_corpus(str(path), data(), "train", 64, storage).rows == 100


def test_a_crash_leaves_no_half_corpus(
    tmp_path: Path, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "rows.jsonl", PAIRS[:200])

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(corpus_module, "_commit", killed)  # all is written but the manifest
        with pytest.raises(KeyboardInterrupt):
            prepare_corpus(str(tmp_path / "rows.jsonl"), data(), "train", 64, storage)
    assert files_in(storage) == []
    # What a process leaves that could not even clean up is no corpus, and in nobody's way.
    corpus = prepare_corpus(str(tmp_path / "rows.jsonl"), data(), "train", 64, storage)
    (Path(corpus.folder) / "manifest.json").unlink()
    again = prepare_corpus(str(tmp_path / "rows.jsonl"), data(), "train", 64, storage)
    assert again.digest == corpus.digest
    assert again.head(None) == PAIRS[:200]


def test_two_starts_at_once_end_with_one_corpus(
    tmp_path: Path, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "rows.jsonl", PAIRS[:200])
    both_written = threading.Barrier(2)
    commit, found = corpus_module._commit, []

    def commit_together(*arguments: Any) -> Corpus:
        both_written.wait(timeout=60)
        return commit(*arguments)

    def start() -> None:
        found.append(prepare_corpus(str(tmp_path / "rows.jsonl"), data(), "train", 64, storage))

    monkeypatch.setattr(corpus_module, "_commit", commit_together)
    starts = [threading.Thread(target=start) for _ in range(2)]
    for thread in starts:
        thread.start()
    for thread in starts:
        thread.join()
    assert len(found) == 2
    assert found[0].digest == found[1].digest
    assert [corpus.head(None) for corpus in found] == [PAIRS[:200]] * 2


def test_storage_may_be_a_url_or_relative(
    tmp_path: Path, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "rows.jsonl", PAIRS[:100])
    url = prepare_corpus(str(tmp_path / "rows.jsonl"), data(), "train", 64, Path(storage).as_uri())
    assert url.head(None) == PAIRS[:100]
    monkeypatch.chdir(tmp_path)
    relative = prepare_corpus("rows.jsonl", data(), "train", 64, "here")
    monkeypatch.chdir("/")
    assert relative.head(None) == PAIRS[:100]
    assert relative.digest == url.digest
