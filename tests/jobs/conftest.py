"""Commands as a user runs them: a process of their own, in an empty folder."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pytest

from tests.waiting import DEADLINE

ROOT = Path(__file__).parents[2]

MINIMAL_RECIPE = """\
name: tiny
data: {train: embedded:train, validation: embedded:validation}
train: {steps: 2}
"""


@dataclass(frozen=True)
class Finished:
    """A command that ended, and what it said."""

    exit_code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Forked(Finished):
    """Also which libraries it had loaded, of those that take a second or more."""

    loaded: set[str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder that commands run in: empty but for one small recipe."""
    (tmp_path / "recipe.yaml").write_text(MINIMAL_RECIPE)
    return tmp_path


@pytest.fixture(scope="session")
def forks() -> Iterator["subprocess.Popen[str]"]:
    """What forks short commands; see tests/jobs/forks.py."""
    words = [sys.executable, "-m", "tests.jobs.forks"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(words, cwd=ROOT, env=environment(), text=True, **pipes) as forks:
        yield forks
        assert forks.stdin
        forks.stdin.close()


@pytest.fixture
def heliograph(forks: "subprocess.Popen[str]", folder: Path) -> Callable[..., Forked]:
    """Runs `heliograph VERB …` in the folder, or `python -m MODULE …` when a module is named."""

    def run(*words: str, module: str = "heliograph.jobs.cli") -> Forked:
        assert forks.stdin
        assert forks.stdout
        with tempfile.TemporaryDirectory() as answers:
            request = {"answers": answers, "folder": str(folder), "module": module, "words": words}
            print(json.dumps(request), file=forks.stdin, flush=True)
            code = int(forks.stdout.readline())
            stdout, stderr, loaded = (
                Path(answers, name).read_text() for name in ("stdout", "stderr", "loaded")
            )
        return Forked(code, stdout, stderr, set(loaded.split()))

    return run


def run_command(
    words: Sequence[str], folder: Path, settings: Mapping[str, str] = MappingProxyType({})
) -> Finished:
    """`python WORDS` in the folder, in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=environment() | {"PYTHONPATH": str(ROOT), **settings},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def environment() -> dict[str, str]:
    """The caller's own, of which Ray's and MLflow's settings are left out."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RAY_", "MLFLOW_")) and name != "PYTHONDONTWRITEBYTECODE"
    }
    return inherited | {"HF_HUB_OFFLINE": "1"}
