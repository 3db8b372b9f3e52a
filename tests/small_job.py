"""A whole job of seconds: its recipe, and the command as a process of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from heliograph.pipeline.request.recipe import Recipe
from heliograph.pipeline.request.recipe_file import parse_recipe
from heliograph.pipeline.sources.embedded import grammar

ROOT = Path(__file__).parents[1]


def small_recipe(folder: Path, **sections: Any) -> Recipe:
    """A job of seconds on 600 sentence pairs."""
    for split, count in (("train", 600), ("validation", 40)):
        lines = [
            json.dumps({"translation": {"en": source, "de": target}})
            for source, target in grammar.pairs(split)[:count]
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    tree: dict[str, Any] = {
        "name": "small",
        "storage": str(folder / "storage"),
        "data": {
            "train": str(folder / "train.jsonl"),
            "validation": str(folder / "validation.jsonl"),
            "source": "en",
            "target": "de",
        },
        "tokenizer": {"vocabulary_size": 400},
        "batches": {
            "tokens_per_micro_batch": 256,
            "tokens_per_step": 1024,
            "piece_rows": 50,
            "window_pieces": 4,
        },
        "model": {
            "width": 32,
            "heads": 2,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "feed_forward": 64,
        },
        "train": {"steps": 12, "warmup_steps": 4, "checkpoint_steps": 5},
        "validation": {"every_steps": 6},
        "evaluate": {"beam": 2},
        "registry": {"promote": True},
        "cluster": {"workers": 2},
    }
    for name, values in sections.items():
        tree[name] = {**tree.get(name, {}), **values} if isinstance(values, dict) else values
    return parse_recipe(tree)


class Command:
    """`python -m WORDS` in a session of its own, as a terminal gives one to each command.

    Args:
        folder: the working folder; what the command says is added to `log` there.
        environment: beside the caller's own, of which Ray's and MLflow's settings are left out.
    """

    def __init__(self, words: Sequence[str], folder: Path, environment: dict[str, str]) -> None:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("RAY_", "MLFLOW_"))
        }
        self.log = folder / "log"
        with self.log.open("ab") as log:
            self.process = psutil.Popen(
                [sys.executable, "-m", *words],
                cwd=folder,
                env=inherited | {"PYTHONPATH": str(ROOT)} | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                # A shell's background commands ignore it, and what they start would inherit that.
                preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
            )

    def family(self) -> list[psutil.Process]:
        """The process and all that it has started so far."""
        return [self.process, *self.process.children(recursive=True)]

    def interrupt(self) -> None:
        """As a terminal does it at Ctrl-C: to all processes of the foreground."""
        os.killpg(self.process.pid, signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL, if it still runs; Ray ends what it has started."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def result(self) -> dict[str, Any]:
        """What --json ended with; on standard error something may have been said since."""
        objects = [line for line in self.said().splitlines() if line.startswith("{")]
        return dict(json.loads(objects[-1]))


def write_somebody_s_project(folder: Path, *libraries: str) -> None:
    """Modules and packages of a user's own, of which none may be imported in place of ours; and
    some that are called like libraries."""
    packages = [f"{name}/__init__" for name in ("pipeline", "jobs", "recipes", *libraries)]
    for name in ("model", "train", "evaluate", *packages):
        path = folder / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"raise ImportError('the user has {name}')\n", encoding="utf-8")
