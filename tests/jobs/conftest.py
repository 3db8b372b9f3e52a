"""Commands as a user runs them: a process of their own, in an empty folder."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

MINIMAL_RECIPE = """\
name: tiny
data: {train: embedded:train, validation: embedded:validation}
train: {steps: 2}
"""


@dataclass(frozen=True)
class Finished:
    """A command that ended: what it said, and how long it took."""

    exit_code: int
    stdout: str
    stderr: str
    seconds: float


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder that commands run in: empty but for one small recipe."""
    (tmp_path / "recipe.yaml").write_text(MINIMAL_RECIPE)
    return tmp_path


@pytest.fixture
def heliograph(folder: Path) -> Callable[..., Finished]:
    """Runs `heliograph VERB …` in the folder, or `python -m MODULE …` when a module is named."""

    def run(*words: str, module: str = "jobs.cli", text: str = "") -> Finished:
        return run_command([sys.executable, "-m", module, *words], folder, text)

    return run


def run_command(words: Sequence[str], folder: Path, text: str = "") -> Finished:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RAY_", "MLFLOW_")) and name != "PYTHONDONTWRITEBYTECODE"
    }
    environment |= {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    start = time.monotonic()
    done = subprocess.run(
        words, cwd=folder, env=environment, input=text, capture_output=True, text=True, timeout=60
    )
    seconds = time.monotonic() - start
    return Finished(done.returncode, done.stdout, done.stderr, seconds)
