"""How far a corpus is read, and what becomes of a reading that was killed."""

import os
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from datasets import IterableDataset

from heliograph.pipeline.corpus import corpus as corpus_module
from heliograph.pipeline.corpus.corpus import Corpus, prepare_corpus
from heliograph.pipeline.corpus.found_data import FoundData
from heliograph.pipeline.corpus.readings import READINGS
from heliograph.pipeline.request.data import Data
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.sources.shards import Shards
from heliograph.pipeline.sources.source import Part, Source
from tests.pipeline.written_corpus import PAIRS, data, prepare, write

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_no_more_rows_are_read_than_asked_for(tmp_path: Path, storage: str) -> None:
    for number in range(3):
        write(tmp_path / f"{number}.jsonl", [(None, "x"), *PAIRS[1000 * number :][:99]])
    path = str(tmp_path / "*.jsonl")
    corpus = prepare(path, data(max_rows=32), 8, storage)
    # 11 + 11 + 10 rows, of which the first of each is dropped.
    assert corpus.head(None) == [*PAIRS[:10], *PAIRS[1000:1010], *PAIRS[2000:2009]]
    assert (corpus.seen, corpus.dropped) == (32, {"missing": 3})
    assert corpus.identity["max_rows"] == 32
    more = prepare(path, data(max_rows=33), 8, storage)
    assert more.seen == 33
    assert more.folder != corpus.folder
    whole = prepare(path, data(), 8, storage, enough=10)
    assert whole.seen == 300  # of files it is known where they end
    assert "positions" not in whole.identity


def endless(shards: list[int], closed: str) -> Iterator[dict[str, str]]:
    """Sentences without end; a file in the folder says that a shard was closed."""
    for shard in shards:
        try:
            for number in count():
                yield {"en": f"shard {shard} row {number}", "de": f"Zeile {number}"}
        finally:
            Path(closed, f"shard-{shard}").touch()


def test_an_endless_stream_is_read_until_it_is_enough(tmp_path: Path, storage: str) -> None:
    keywords = {"shards": [0, 1, 2], "closed": str(tmp_path)}
    stream = IterableDataset.from_generator(endless, gen_kwargs=keywords)
    names = ("first", "second", "third")
    shards = Shards(stream, False, names, {"stream": "endless"})
    parts = tuple(Part((name,)) for name in names)
    source = Source(parts, shards, ("en", "de"), shards.identity, "endless")

    def prepare(options: Data, enough: int) -> Corpus:
        found = FoundData("endless", options, "train", source)
        return prepare_corpus(found, 8, storage, enough)

    corpus = prepare(data(), 100)
    # Four words, hence surely five positions a pair, and a share of 34 of them: seven pairs each.
    texts = [(f"shard {s} row {i}", f"Zeile {i}") for s in range(3) for i in range(7)]
    assert corpus.head(None) == texts
    assert corpus.seen == 21
    assert corpus.identity == {"stream": "endless", "positions": 100}
    assert {path.name for path in tmp_path.glob("shard-*")} == {"shard-0", "shard-1", "shard-2"}
    more = prepare(data(), 106)
    assert more.rows == 24
    fewer = prepare(data(max_rows=4), 106)
    assert [source for source, _ in fewer.head(None)] == [
        "shard 0 row 0", "shard 0 row 1", "shard 1 row 0", "shard 2 row 0"
    ]  # fmt: skip
    assert fewer.identity == {"stream": "endless", "max_rows": 4, "positions": 106}


def test_what_a_killed_start_has_read_is_not_read_again(
    tmp_path: Path, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    same, changed = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    write(same, PAIRS[:100])
    write(changed, [*PAIRS[100:150], (None, "x")])
    write(tmp_path / "c.jsonl", PAIRS[300:310])
    path = str(tmp_path / "*.jsonl")
    options = data(drop_duplicates=True, max_dropped_share=0.9)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(corpus_module, "write_pieces", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare(path, options, 64, storage)
    (left,) = Path(storage, READINGS).iterdir()
    before = same.stat()
    same.write_text("not JSON".ljust(before.st_size))  # to be seen if it were read again
    os.utime(same, ns=(before.st_atime_ns, before.st_mtime_ns))
    write(changed, [*PAIRS[200:230], PAIRS[0]])
    os.rename(tmp_path / "c.jsonl", tmp_path / "0.jsonl")
    corpus = prepare(path, options, 64, storage)
    assert corpus.head(None) == [*PAIRS[300:310], *PAIRS[:100], *PAIRS[200:230]]
    assert (corpus.seen, corpus.dropped) == (141, {"duplicate": 1})
    assert [*Path(storage, READINGS).iterdir()] == [left]
    for file in left.iterdir():
        os.utime(file, (time.time() - 2 * 24 * 3600,) * 2)
    write(changed, PAIRS[:10])
    with pytest.raises(RequestError, match=r"a\.jsonl' ends in the middle of line 1"):
        prepare(path, options, 64, storage)
    assert not left.exists()  # after a day


def test_what_a_killed_start_left_is_deleted_after_a_day(tmp_path: Path, storage: str) -> None:
    write(tmp_path / "rows.jsonl", PAIRS[:100])
    path = str(tmp_path / "rows.jsonl")
    corpus = prepare(path, data(), 64, storage)

    def left(name: str, *, age: float, newest: float) -> Path:
        """An attempt's folder with two files, `age` and `newest` seconds old."""
        folder = Path(corpus.folder, name)
        (folder / "workshop").mkdir(parents=True)
        for file, seconds in (("part-00000.parquet", age), ("workshop/pairs-0-0.parquet", newest)):
            (folder / file).touch()
            os.utime(folder / file, (time.time() - seconds,) * 2)
        return folder

    day = 24 * 3600.0
    old = left("old", age=9 * day, newest=1.1 * day)
    alive = left("alive", age=9 * day, newest=0.9 * day)
    empty = Path(corpus.folder, "empty")
    empty.mkdir()
    os.utime(empty, (time.time() - 2 * day,) * 2)
    own = Path(corpus.folder, corpus.files[0][0])
    os.utime(own, (time.time() - 9 * day,) * 2)
    assert prepare(path, data(), 64, storage) == corpus
    assert not old.exists()
    assert not empty.exists()
    assert alive.exists()
    assert corpus.head(None) == PAIRS[:100]
    (Path(corpus.folder) / "manifest.json").unlink()
    again = prepare(path, data(), 64, storage)  # written anew
    assert not own.exists()
    assert again.head(None) == PAIRS[:100]
