"""Connections that break and files that are shorter than announced, on a local stand-in of the hub.

The programs do not wait between attempts, but add up how long they would have."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    """A data set of each file."""
    with serve_hub() as server:
        for name, content in FILES.items():
            server.publish(data_set(name), {name: content})
        yield server


def data_set(name: str) -> str:
    return f"owner/{name.replace('.', '-')}"


def read_each(hub: Hub, home: Path) -> tuple[dict[str, Any], float]:
    """By file the answer; and the seconds that would have been waited, for all together."""
    requests = [(data_set(name), "train", VALUES.get(name, {})) for name in FILES]
    *answers, waited = ask(hub.endpoint, home, *requests, program=WITHOUT_WAITING)
    return dict(zip(FILES, answers, strict=True)), waited


def test_a_connection_that_is_lost_for_a_moment_costs_nothing(hub: Hub, tmp_path: Path) -> None:
    hub.drops = dict.fromkeys(FILES, 2)
    answers, _ = read_each(hub, tmp_path)
    assert {name: answer.get("rows") for name, answer in answers.items()} == dict.fromkeys(
        FILES, len(MANY)
    ), answers
    assert hub.drops == dict.fromkeys(FILES, 0)


def test_a_connection_that_stays_lost_is_said_in_words(hub: Hub, tmp_path: Path) -> None:
    hub.drops = dict.fromkeys(FILES, 1_000_000)
    answers, waited = read_each(hub, tmp_path)
    for name, answer in answers.items():
        assert all(
            words in answer["error"] for words in (name, "connection was lost", "the same command")
        ), answer
        assert hub.drops[name] > 1_000_000 - 20
    assert 3 < waited < 180


def test_a_file_shorter_than_announced_is_no_short_file(hub: Hub, tmp_path: Path) -> None:
    hub.missing_bytes = dict.fromkeys(FILES, 1000)
    answers, _ = read_each(hub, tmp_path)
    for name, answer in answers.items():
        assert name in answer["error"], answer
        if name != "train.txt":  # of a stream only `datasets` sees the bytes
            assert "announced" in answer["error"]
