"""Connections that break and files that are shorter than announced, on a local stand-in of the hub.

The programs do not wait between attempts, but add up how long they would have."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipeline.hub import ON_THE_HUB, Hub, ask, serve_hub
from tests.pipeline.pairs import PAIRS, jsonl, parquet

WITHOUT_WAITING = (
    """
import time
waited = []
time.sleep = waited.append
"""
    + ON_THE_HUB
    + """
print(json.dumps(sum(waited)))
"""
)
MANY = [(f"{number} {source}", target) for number in range(2000) for source, target in PAIRS]
FILES = {
    "train.jsonl": jsonl(MANY),
    "train.parquet": parquet(MANY),
    "train.txt": "\n".join(source for source, _ in MANY).encode(),
}
VALUES = {"train.txt": {"source": "text", "target": "text"}}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub() as server:
        yield server


@pytest.mark.parametrize("name", FILES)
def test_a_connection_that_is_lost_for_a_moment_costs_nothing(
    hub: Hub, tmp_path: Path, name: str
) -> None:
    hub.publish("owner/set", {name: FILES[name]})
    hub.drops[name] = 2
    request = ("owner/set", "train", VALUES.get(name, {}))
    answer, _ = ask(hub.endpoint, tmp_path, request, program=WITHOUT_WAITING)
    assert answer["rows"] == len(MANY)
    assert hub.drops[name] == 0


@pytest.mark.parametrize("name", FILES)
def test_a_connection_that_stays_lost_is_said_in_words(hub: Hub, tmp_path: Path, name: str) -> None:
    hub.publish("owner/set", {name: FILES[name]})
    hub.drops[name] = 1_000_000
    request = ("owner/set", "train", VALUES.get(name, {}))
    answer, waited = ask(hub.endpoint, tmp_path, request, program=WITHOUT_WAITING)
    assert all(
        words in answer["error"] for words in (name, "connection was lost", "the same command")
    ), answer
    assert 1 < waited < 60
    assert hub.drops[name] > 1_000_000 - 20


@pytest.mark.parametrize("name", FILES)
def test_a_file_shorter_than_announced_is_no_short_file(
    hub: Hub, tmp_path: Path, name: str
) -> None:
    hub.publish("owner/set", {name: FILES[name]})
    hub.missing_bytes[name] = 1000
    request = ("owner/set", "train", VALUES.get(name, {}))
    answer, _ = ask(hub.endpoint, tmp_path, request, program=WITHOUT_WAITING)
    assert name in answer["error"], answer
    if name != "train.txt":  # of a stream only `datasets` sees the bytes
        assert "announced" in answer["error"]
