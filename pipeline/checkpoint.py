"""Checkpoints: everything needed to go on, whole or absent.

A checkpoint is a model folder, so that any MODEL argument accepts one, with the optimizer's
moments, the position in the data and the recipe added. `checksums.json` is written last and names
the SHA-256 of every other file: a folder without it, or with a file that differs, is none.

This is our own store rather than `ray.train.report(checkpoint=…)` because the position is needed
before the workers start, by whoever builds the stream of batches, and because a damaged checkpoint
must fall back to the one before.
"""

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pyarrow.fs as pafs
import torch
from safetensors.torch import load_file, save_file

from pipeline.batches import Position
from pipeline.files import filesystem_of
from pipeline.step import Meter

logger = logging.getLogger(__name__)

CHECKSUMS = "checksums.json"


@dataclass(frozen=True)
class Validation:
    """What one validation measured. Loss in nats per target token."""

    step: int
    loss: float
    bleu: float
    chrf: float


@dataclass(frozen=True)
class TrainingState:
    """Where training stands after `step` optimizer steps."""

    step: int = 0
    position: Position = field(default_factory=Position)
    latest: Validation | None = None
    best: Validation | None = None
    validations_without_better: int = 0
    averaged: Validation | None = None
    """Of the mean of the last checkpoints, where that was better than the best of them."""
    total: Meter = field(default_factory=Meter)
    """Summed over the whole job, restarts included; what was lost in a failure is counted once."""

    def with_validation(self, latest: Validation) -> "TrainingState":
        """The state after a validation: the best one by BLEU, and how long it has stood."""
        better = self.best is None or latest.bleu > self.best.bleu
        return replace(
            self,
            latest=latest,
            best=latest if better else self.best,
            validations_without_better=0 if better else self.validations_without_better + 1,
        )

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "TrainingState":
        tree = json.loads(text)
        tree["position"] = Position(**tree["position"])
        tree["total"] = Meter(**tree["total"])
        for key in ("latest", "best", "averaged"):
            tree[key] = Validation(**tree[key]) if tree[key] else None
        return cls(**tree)


class CheckpointStore:
    """A job's checkpoints, one folder a step, on a local path or any URL pyarrow knows."""

    def __init__(self, url: str) -> None:
        self._files, self._root = filesystem_of(url)
        self._local = isinstance(self._files, pafs.LocalFileSystem)

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """Publish what `write` puts into a fresh folder. Nothing is visible until all of it is.

        On a local or mounted file system that is a rename; on an object store the checksums are
        uploaded last, and a reader takes a folder without them for nothing.
        """
        if self._local:
            Path(self._root).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=self._root if self._local else None, prefix=".writing-"
        ) as temporary:
            folder = Path(temporary) / "checkpoint"
            folder.mkdir()
            write(folder)
            sums = {path.name: _sha256(path) for path in sorted(folder.iterdir())}
            (folder / CHECKSUMS).write_text(json.dumps(sums, indent=2), encoding="utf-8")
            if self._local:
                target = Path(self._path(step))
                shutil.rmtree(target, ignore_errors=True)  # a damaged one of the same step
                folder.rename(target)
                return
            for name in [*sums, CHECKSUMS]:
                pafs.copy_files(
                    str(folder / name),
                    f"{self._path(step)}/{name}",
                    source_filesystem=pafs.LocalFileSystem(),
                    destination_filesystem=self._files,
                )

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, ascending; their files are not checked here."""
        selector = pafs.FileSelector(self._root, allow_not_found=True)
        names = [entry.base_name for entry in self._files.get_file_info(selector)]
        found = (name.removeprefix("step-") for name in names if name.startswith("step-"))
        return sorted(int(number) for number in found if number.isdigit())

    def fetch(self, step: int, folder: Path) -> Path:
        """Copy the checkpoint of `step` into `folder` and check every file.

        Raises:
            OSError: a file is missing or differs from its checksum.
        """
        folder.mkdir(parents=True, exist_ok=True)
        pafs.copy_files(
            self._path(step),
            str(folder),
            source_filesystem=self._files,
            destination_filesystem=pafs.LocalFileSystem(),
        )
        verify(folder)
        return folder

    def fetch_newest(self, folder: Path) -> int | None:
        """Copy the newest sound checkpoint into `folder`; its step, or None where there is none.

        A damaged one is reported and passed over for the one before it.
        """
        for step in reversed(self.steps()):
            try:
                self.fetch(step, folder)
                return step
            except (OSError, ValueError) as error:
                logger.error(
                    "checkpoint of step %d is damaged, trying the one before: %s", step, error
                )
                shutil.rmtree(folder, ignore_errors=True)
        return None

    def newest_state(self) -> TrainingState:
        """The state of the newest sound checkpoint; the initial state where there is none."""
        with tempfile.TemporaryDirectory() as temporary:
            if self.fetch_newest(Path(temporary) / "newest") is None:
                return TrainingState()
            return load_state(Path(temporary) / "newest")

    def prune(self, keep_newest: int, keep_also: Collection[int]) -> None:
        """Delete all but the newest `keep_newest` checkpoints and those of the steps named."""
        for step in self.steps()[:-keep_newest]:
            if step not in keep_also:
                self._files.delete_dir(self._path(step))

    def _path(self, step: int) -> str:
        return f"{self._root}/step-{step:08d}"


def verify(folder: Path) -> None:
    """Raises OSError when a file of the checkpoint is missing or not what was written."""
    sums = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
    for name, expected in sums.items():
        if _sha256(folder / name) != expected:
            raise OSError(f"{name} differs from its checksum")


def save_state(
    folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, state: TrainingState
) -> None:
    """Write the optimizer's moments, by parameter name, and the training state."""
    names: dict[object, str] = {parameter: name for name, parameter in model.named_parameters()}
    tensors = {
        f"{names[parameter]}/{key}": value.detach().cpu().contiguous()
        for parameter, moments in optimizer.state.items()
        for key, value in moments.items()
    }
    save_file(tensors, folder / "optimizer.safetensors")
    (folder / "state.json").write_text(state.to_json(), encoding="utf-8")


def load_state(folder: Path) -> TrainingState:
    """The training state that `save_state` wrote."""
    return TrainingState.from_json((folder / "state.json").read_text(encoding="utf-8"))


def load_optimizer(folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put the moments that `save_state` wrote back beside their parameters."""
    parameters = dict(model.named_parameters())
    for path, value in load_file(folder / "optimizer.safetensors").items():
        name, key = path.rsplit("/", 1)
        parameter = parameters[name]
        # Adam keeps its step count on the CPU unless it is fused there with the parameters.
        device = parameter.device if value.dim() or optimizer.defaults.get("fused") else "cpu"
        optimizer.state[parameter][key] = value.to(device)


def average(folders: Collection[Path]) -> dict[str, torch.Tensor]:
    """The mean of several model folders' weights, summed in float64 (section 6.1)."""
    total: dict[str, torch.Tensor] = {}
    for folder in folders:
        for name, value in load_file(folder / "model.safetensors").items():
            total[name] = total.get(name, torch.zeros_like(value, dtype=torch.float64)) + value
    return {name: (value / len(folders)).float() for name, value in total.items()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
