"""The commit of the code is known in its repository, and where it was sent from there."""

import subprocess
from pathlib import Path

import pytest

from heliograph.pipeline.cluster.checkout import SENT, Checkout, find_checkout


def test_the_commit_goes_with_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SENT, raising=False)
    repository, elsewhere = tmp_path / "here", tmp_path / "there"
    elsewhere.mkdir()
    subprocess.run(["git", "init", "-q", str(repository)], check=True)
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    words = ["git", "-C", str(repository), *who, "commit", "-qm", "x", "--allow-empty"]
    subprocess.run(words, check=True)
    for modified in (False, True):
        found = find_checkout(repository)
        assert found is not None
        assert (len(found.commit), found.modified) == (40, modified)
        assert find_checkout(elsewhere) is None
        monkeypatch.setenv(SENT, str(found))
        assert find_checkout(elsewhere) == found
        monkeypatch.delenv(SENT)
        (repository / "new").touch()
    assert str(Checkout("ab", False)) == "ab"
