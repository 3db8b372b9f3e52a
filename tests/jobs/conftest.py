"""Commands as a user runs them: a process of their own, in an empty folder."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.waiting import DEADLINE

ROOT = Path(__file__).parents[2]

MINIMAL_RECIPE = """\
name: tiny
data: {train: embedded:train, validation: embedded:validation}
train: {steps: 2}
"""


SLOW = ("torch", "ray", "mlflow", "datasets")
"""Libraries that take a second or more to load."""
NOTE_WHAT_IS_LOADED = f"""
import atexit, os, sys
def note(path=os.environ.pop("NOTED", None)):
    if path is not None:
        with open(path, "w") as file:
            file.write(" ".join(name for name in {SLOW} if name in sys.modules))
atexit.register(note)
"""


@dataclass(frozen=True)
class Finished:
    """A command that ended: what it said, and which of the slow libraries it had loaded."""

    exit_code: int
    stdout: str
    stderr: str
    loaded: set[str]


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
    environment |= {"HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as noted:
        # Python runs a module of this name when it starts.
        Path(noted, "sitecustomize.py").write_text(NOTE_WHAT_IS_LOADED)
        environment |= {"PYTHONPATH": f"{noted}{os.pathsep}{ROOT}", "NOTED": f"{noted}/loaded"}
        done = subprocess.run(
            words,
            cwd=folder,
            env=environment,
            input=text,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        loaded = set(Path(noted, "loaded").read_text().split())
    return Finished(done.returncode, done.stdout, done.stderr, loaded)
