"""A process that saves checkpoint after checkpoint, to be killed; an object store of several."""

import json
from collections.abc import Callable
from functools import partial
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path

import fsspec
import torch
from fsspec.implementations.local import LocalFileSystem
from safetensors.torch import load_file, save_file

from heliograph.pipeline.checkpoints.background import BackgroundSaver
from heliograph.pipeline.checkpoints.checkpoint_store import CheckpointStore
from heliograph.pipeline.checkpoints.training_state import TrainingState, Validation

NUMBERS = 12_500
"""In a checkpoint: 100 kB."""


class Objects(LocalFileSystem):
    """Files by a URL, objects://FOLDER, that several processes see and nothing knows as local."""

    protocol = "objects"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.removeprefix("objects://")))


fsspec.register_implementation("objects", Objects, clobber=True)


def writer(step: int, bleu: float | None = None, numbers: int = NUMBERS) -> Callable[[Path], None]:
    """Writes a checkpoint whose every number is its step, with a validation's score if given."""
    state = TrainingState(step=step)
    if bleu is not None:
        state = state.with_validation(Validation(step, 1.0, bleu, bleu))
    return lambda folder: write(folder, state, numbers)


def write(folder: Path, state: TrainingState, numbers: int) -> None:
    save_file({"weight": torch.full((numbers,), state.step)}, folder / "model.safetensors")
    (folder / "state.json").write_text(state.to_json())


def step_in(folder: Path) -> int:
    """The step that all of a checkpoint's numbers are."""
    (step,) = set(load_file(folder / "model.safetensors")["weight"].tolist())
    assert json.loads((folder / "state.json").read_text())["step"] == step
    return int(step)


def save_for_ever(url: str, reports: Connection) -> None:
    """From the newest checkpoint on; each step is reported once its checkpoint is finished."""
    store = CheckpointStore(url)
    found = store.newest()
    with BackgroundSaver(store, keep_newest=2, keep_best=0, damaged=found.damaged) as saver:
        for step in count(found.state.step + 1):
            saver.save(step, partial(writer, step))
            if step - 1 > found.state.step:
                reports.send(step - 1)
