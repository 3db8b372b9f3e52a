"""What a node sees of this machine's files; nodes that see others are in tests/cluster."""

import os
import threading
from pathlib import Path

import pytest
import ray

from heliograph.pipeline.cluster import nodes
from heliograph.pipeline.cluster.start import GROWS_TO
from heliograph.pipeline.request.errors import RequestError

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture
def growing(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process has joined a cluster of one node, more of which are to come."""
    monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
    monkeypatch.setenv(GROWS_TO, "/nowhere/cluster.yaml")


def test_alone_nothing_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No folder is made either."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert not nodes.has_others()
    nodes.check_seen([str(tmp_path / "nowhere")])
    nodes.check_shared(str(tmp_path / "new"), "storage")
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("growing")
def test_what_all_see_is_let_through(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text("{}")
    nodes.check_seen([str(path)])
    nodes.check_shared(str(tmp_path / "new"), "storage")
    nodes.check_shared("s3://a-bucket-that-nobody-asks/for", "storage")
    assert list((tmp_path / "new").iterdir()) == [], "the mark is removed"


@pytest.mark.usefixtures("growing")
def test_a_node_says_what_it_does_not_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Absent, or another file under the same name: this process' own sight is what is changed."""
    there, other = tmp_path / "there", tmp_path / "other"
    for path in (there, other):
        path.write_text("four")
    real = os.path.getsize
    monkeypatch.setattr(
        nodes.os.path, "getsize", lambda path: 3 if path == str(other) else real(path)
    )
    with pytest.raises(RequestError, match=r"other' is on this node's own disk, and not on \S+-"):
        nodes.check_seen([str(there), str(other)])
    monkeypatch.setattr(nodes.Path, "touch", lambda _: None)
    with pytest.raises(RequestError, match=r"output '.*new' is on this node's own disk, .* valid"):
        nodes.check_shared(str(tmp_path / "new"), "output")


def test_a_file_may_take_a_moment_to_appear(tmp_path: Path) -> None:
    """On a network's file system."""
    late = tmp_path / "late"
    timer = threading.Timer(1.0, late.touch)
    timer.start()
    answers = nodes.ask_all(nodes._missing, {str(late): 0})
    timer.join()
    assert list(answers.values()) == [[]]


def test_many_nodes_in_words() -> None:
    assert nodes.in_words(["a"]) == "a"
    assert nodes.in_words(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
