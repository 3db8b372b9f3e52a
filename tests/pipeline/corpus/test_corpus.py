"""The corpus on storage: the same pieces however it was read, whole or absent, found again."""

import random
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from heliograph.pipeline.corpus import corpus as corpus_module
from heliograph.pipeline.corpus import pieces
from heliograph.pipeline.corpus.corpus import Corpus
from heliograph.pipeline.request.data import PairOfFiles
from heliograph.pipeline.request.errors import RequestError
from tests.pipeline.written_corpus import PAIRS, data, files_in, prepare, write
from tests.waiting import DEADLINE

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture
def few_rows_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several files and blocks from a corpus that is small enough for a test."""
    monkeypatch.setattr(pieces, "FILE_ROWS", 1_000)


def test_pieces_and_digest_do_not_depend_on_files_and_blocks(
    few_rows_a_file: None, tmp_path: Path, storage: str
) -> None:
    write(tmp_path / "one.jsonl", PAIRS)
    cuts = [0, 1, 700, 701, 2_500, 2_500, 4_099, 6_000]
    for number, (start, stop) in enumerate(pairwise(cuts)):
        write(tmp_path / f"many-{number}.jsonl", PAIRS[start:stop] or [(None, None)])
    one = prepare(str(tmp_path / "one.jsonl"), data(), 128, storage)
    many = prepare(str(tmp_path / "many-*.jsonl"), data(), 128, storage)
    assert one.digest == many.digest
    assert one.head(None) == many.head(None) == PAIRS
    assert len(one.files) > 3
    for corpus in (one, many):
        assert [corpus.piece(i).rows for i in range(corpus.piece_count)] == [128] * 46 + [112]
        first_rows = [corpus.piece(i).first_row for i in range(corpus.piece_count)]
        assert first_rows == list(range(0, 6_000, 128))
        assert corpus.rows == 6_000
    assert (one.seen, one.dropped) == (6_000, {})
    assert (many.seen, many.dropped) == (6_001, {"missing": 1})


def test_pieces_are_row_groups_and_read_in_the_order_asked(
    few_rows_a_file: None, tmp_path: Path, storage: str
) -> None:
    write(tmp_path / "one.jsonl", PAIRS)
    corpus = prepare(str(tmp_path / "one.jsonl"), data(), 128, storage)
    table = corpus.read([46, 3, 20, 3])
    rows = [*range(5_888, 6_000), *range(384, 512), *range(2_560, 2_688), *range(384, 512)]
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
    assert sum(groups) == corpus.piece_count


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
        digests.add(prepare(path, data(), 2, storage).digest)
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
    corpus = prepare(str(tmp_path / "rows.jsonl"), data(**limits), 64, storage)
    assert corpus.dropped == {
        "missing": 2, "not_text": 3, "empty": 2, "too_long": 1, "length_ratio": 1
    }  # fmt: skip
    assert corpus.seen == len(rows) == 909
    assert corpus.head(None) == PAIRS[:900]


def test_a_corpus_that_loses_too_much_stops_with_the_reasons(tmp_path: Path, storage: str) -> None:
    write(tmp_path / "rows.jsonl", [*PAIRS[:80], *[(None, "x")] * 15, *[("", "x")] * 5])
    path = str(tmp_path / "rows.jsonl")
    with pytest.raises(RequestError, match=r"20 of 100 .*empty 5, missing 15.*max_dropped_share"):
        prepare(path, data(), 64, storage)
    assert files_in(storage) == []
    assert prepare(path, data(max_dropped_share=0.2), 64, storage).rows == 80
    with pytest.raises(RequestError, match="20 of 100"):  # now that it is there, too
        prepare(path, data(max_dropped_share=0.19), 64, storage)


def test_a_corpus_of_which_nothing_is_left_is_an_error(tmp_path: Path, storage: str) -> None:
    write(tmp_path / "rows.jsonl", [(None, "x"), ("", "y")])
    everything = data(max_dropped_share=1.0)
    with pytest.raises(RequestError, match="none of 2 pairs can be used: empty 1, missing 1"):
        prepare(str(tmp_path / "rows.jsonl"), everything, 64, storage)
    (tmp_path / "nothing.jsonl").write_text("\n\n")
    with pytest.raises(RequestError, match=r"nothing\.jsonl.*no rows"):
        prepare(str(tmp_path / "nothing.jsonl"), data(), 64, storage)
    assert files_in(storage) == []


def test_what_only_a_full_reading_shows_is_said_in_words(tmp_path: Path, storage: str) -> None:
    write(tmp_path / "a.jsonl", PAIRS[:10])
    (tmp_path / "b.jsonl").write_text('{"en": "a", "de": "b"}\n{nope\n')
    with pytest.raises(RequestError) as caught:
        prepare(str(tmp_path / "*.jsonl"), data(), 64, storage)
    assert "b.jsonl' line 2 is not JSON" in str(caught.value)
    assert "\n" not in str(caught.value)
    (tmp_path / "long").write_text("line\n" * 20_001)
    (tmp_path / "short").write_text("line\n" * 20_000)
    pair = PairOfFiles(source=str(tmp_path / "long"), target=str(tmp_path / "short"))
    with pytest.raises(RequestError, match=r"long' has 20001 lines and '.*short' has 20000"):
        prepare(pair, data(), 64, storage)
    assert files_in(storage) == []


def test_a_prepared_corpus_is_found_again_without_reading(
    tmp_path: Path, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.jsonl"
    write(path, PAIRS[:200])
    first = prepare(str(path), data(), 64, storage)
    assert Corpus.load(first.folder) == first
    with monkeypatch.context() as patch:
        patch.setattr(corpus_module, "_write_corpus", None)
        assert prepare(str(path), data(), 64, storage) == first
    assert prepare(str(path), data(max_characters=99), 64, storage) != first
    smaller = prepare(str(path), data(), 50, storage)
    assert smaller.folder != first.folder
    assert smaller.piece_count == 4
    write(path, PAIRS[:100])
    assert prepare(str(path), data(), 64, storage).rows == 100


def test_a_crash_leaves_no_half_corpus(
    tmp_path: Path, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "rows.jsonl", PAIRS[:200])

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(corpus_module, "_commit", killed)  # all is written but the manifest
        with pytest.raises(KeyboardInterrupt):
            prepare(str(tmp_path / "rows.jsonl"), data(), 64, storage)
    assert files_in(storage) == []
    # What a process leaves that could not even clean up is no corpus, and in nobody's way.
    corpus = prepare(str(tmp_path / "rows.jsonl"), data(), 64, storage)
    (Path(corpus.folder) / "manifest.json").unlink()
    again = prepare(str(tmp_path / "rows.jsonl"), data(), 64, storage)
    assert again.digest == corpus.digest
    assert again.head(None) == PAIRS[:200]


def test_two_starts_at_once_end_with_one_corpus(
    tmp_path: Path, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "rows.jsonl", PAIRS[:200])
    both_written = threading.Barrier(2)
    commit, found = corpus_module._commit, []

    def commit_together(*arguments: Any) -> Corpus:
        both_written.wait(timeout=DEADLINE)
        return commit(*arguments)

    def start() -> None:
        found.append(prepare(str(tmp_path / "rows.jsonl"), data(), 64, storage))

    monkeypatch.setattr(corpus_module, "_commit", commit_together)
    starts = [threading.Thread(target=start) for _ in range(2)]
    for thread in starts:
        thread.start()
    for thread in starts:
        thread.join()
    assert len(found) == 2
    assert found[0].digest == found[1].digest
    assert [corpus.head(None) for corpus in found] == [PAIRS[:200]] * 2
    published = Corpus.load(found[0].folder)
    assert found[1].folder == published.folder
    assert published.files in [corpus.files for corpus in found]
    assert published.head(None) == PAIRS[:200]


def test_storage_may_be_a_url_or_relative(
    tmp_path: Path, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "rows.jsonl", PAIRS[:100])
    url = prepare(str(tmp_path / "rows.jsonl"), data(), 64, Path(storage).as_uri())
    assert url.head(None) == PAIRS[:100]
    monkeypatch.chdir(tmp_path)
    relative = prepare("rows.jsonl", data(), 64, "here")
    monkeypatch.chdir("/")
    assert relative.head(None) == PAIRS[:100]
    assert relative.digest == url.digest


# --- Options of cleaning ------------------------------------------------------------------------


def test_options_of_cleaning_are_part_of_what_the_corpus_is(tmp_path: Path, storage: str) -> None:
    rows = [("cafe\u0301", "Kaffee"), ("Hotel", "Hotel"), ("ﬁne", "fein"), ("ﬁne", "fein")]
    write(tmp_path / "rows.jsonl", rows)

    def prepared(**options: Any) -> Corpus:
        everything = data(max_dropped_share=1.0, **options)
        return prepare(str(tmp_path / "rows.jsonl"), everything, 64, storage)

    plain = prepared()
    assert (plain.head(None), plain.dropped, plain.changed) == (rows, {}, {})
    composed = prepared(unicode="NFC", drop_identical=True)
    assert composed.head(None) == [("café", "Kaffee"), *rows[2:]]
    assert (composed.dropped, composed.changed) == ({"identical": 1}, {"normalized": 1})
    everything = prepared(unicode="NFKC", drop_identical=True, drop_duplicates=True)
    assert everything.head(None) == [("café", "Kaffee"), ("fine", "fein")]
    assert everything.dropped == {"identical": 1, "duplicate": 1}
    assert everything.changed == {"normalized": 3}
    assert everything.seen == 4
    assert Corpus.load(everything.folder) == everything


def test_duplicates_are_found_across_files_and_row_groups(
    few_rows_a_file: None, tmp_path: Path, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(1)
    pairs = [PAIRS[draw.randrange(2_500)] for _ in range(5_000)]
    expected = list(dict.fromkeys(pairs))
    write(tmp_path / "one.jsonl", pairs)
    for number, (start, stop) in enumerate(pairwise([0, 7, 3_000, 3_001, 5_000])):
        write(tmp_path / f"many-{number}.jsonl", pairs[start:stop])
    columns = {side: [pair[i] for pair in pairs] for i, side in enumerate(("en", "de"))}
    pq.write_table(pa.table(columns), tmp_path / "one.parquet", row_group_size=700)
    monkeypatch.setattr(
        "heliograph.pipeline.sources.source.TASK_BYTES", 10_000
    )  # a task for each row group
    options = data(drop_duplicates=True, max_dropped_share=0.9)
    digests = set()
    for name in ("one.jsonl", "many-*.jsonl", "one.parquet"):
        corpus = prepare(str(tmp_path / name), options, 64, storage)
        assert corpus.head(None) == expected
        assert corpus.dropped == {"duplicate": 5_000 - len(expected)}
        digests.add(corpus.digest)
        inside = {path.name for path in Path(corpus.folder).iterdir()}
        assert inside == {"manifest.json", corpus.files[0][0].partition("/")[0]}
    assert len(digests) == 1
    assert all(path.suffix == ".json" or path.match("part-*.parquet") for path in files_in(storage))
    without = prepare(str(tmp_path / "one.jsonl"), data(), 64, storage)
    assert without.head(None) == pairs


def test_a_corpus_of_duplicates_only(tmp_path: Path, storage: str) -> None:
    write(tmp_path / "rows.jsonl", [("a dog", "ein Hund")] * 500)
    path = str(tmp_path / "rows.jsonl")
    with pytest.raises(RequestError, match=r"499 of 500 .*\(duplicate 499\).*max_dropped_share"):
        prepare(path, data(drop_duplicates=True), 64, storage)
    assert files_in(storage) == []
    everything = data(drop_duplicates=True, max_dropped_share=1.0)
    corpus = prepare(path, everything, 64, storage)
    assert corpus.head(None) == [("a dog", "ein Hund")]
    assert corpus.dropped == {"duplicate": 499}
