"""What a checkpoint holds: a model folder, the optimizer's moments, the state and the recipe.

As it is a model folder, any MODEL argument accepts a checkpoint. A snapshot in host memory is taken
while training pauses; what is written is the snapshot, while training goes on.
"""

from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from heliograph.model import Transformer
from heliograph.pipeline.checkpoints.checkpoint_store import STATE
from heliograph.pipeline.checkpoints.model_folder import RECIPE, WEIGHTS, save_model
from heliograph.pipeline.checkpoints.training_state import TrainingState
from heliograph.pipeline.steps.tokenizer import Tokenizer

MOMENTS = "optimizer.safetensors"


class Snapshot:
    """Weights and moments as they were at one step, in host memory: three times the weights' size.

    The memory is allocated once and filled again by each `take`, pinned where the model is on a
    GPU, so that a copy runs at the speed of the bus.
    """

    def __init__(
        self,
        model: Transformer,
        optimizer: torch.optim.Optimizer,
        tokenizer: Tokenizer,
        recipe_yaml: str,
    ) -> None:
        self._live, self._optimizer = model, optimizer
        self._tokenizer, self._recipe_yaml = tokenizer, recipe_yaml
        self._weights: dict[str, Tensor] = {}
        self._moments: dict[str, Tensor] = {}
        with torch.device("meta"):  # no memory of its own: it is given the weights' copies
            self._copy = Transformer(model.config)

    @torch.no_grad()
    def take(self, state: TrainingState) -> Callable[[Path], None]:
        """Copy weights and moments; what writes the checkpoint into a folder, from any thread.

        What an earlier `take` returned must have ended: its memory is used again.
        """
        for name, parameter in self._live.named_parameters():
            _copy_into(self._weights, name, parameter)
        for name, moment in moments_of(self._live, self._optimizer):
            _copy_into(self._moments, name, moment)
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # the copies from a GPU were only begun
        self._copy.load_state_dict(self._weights, assign=True)
        return partial(self._write, state)

    def _write(self, state: TrainingState, folder: Path) -> None:
        save_model(folder, self._copy, self._tokenizer)
        save_file(self._moments, folder / MOMENTS)
        (folder / STATE).write_text(state.to_json(), encoding="utf-8")
        (folder / RECIPE).write_text(self._recipe_yaml, encoding="utf-8")


def moments_of(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> Iterator[tuple[str, Tensor]]:
    """The optimizer's moments, named PARAMETER/MOMENT; none before its first step."""
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            yield f"{name}/{key}", value


def load_state(folder: Path) -> TrainingState:
    """The training state of a checkpoint."""
    return TrainingState.from_json((folder / STATE).read_text(encoding="utf-8"))


def load_optimizer(folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint's moments back beside their parameters."""
    parameters = dict(model.named_parameters())
    for path, value in load_file(folder / MOMENTS).items():
        name, key = path.rsplit("/", 1)
        parameter = parameters[name]
        # Adam keeps its step count on the CPU unless it is fused there with the parameters.
        device = parameter.device if value.dim() or optimizer.defaults.get("fused") else "cpu"
        # A copy, even on a CPU: what was loaded is a view of the file, which may be deleted.
        optimizer.state[parameter][key] = value.to(device, copy=True)


def average(folders: Collection[Path]) -> dict[str, Tensor]:
    """The mean of several model folders' weights, summed in float64 (section 6.1)."""
    total: dict[str, Tensor] = {}
    for folder in folders:
        for name, value in load_file(folder / WEIGHTS).items():
            total[name] = total.get(name, torch.zeros_like(value, dtype=torch.float64)) + value
    return {name: (value / len(folders)).float() for name, value in total.items()}


def _copy_into(buffers: dict[str, Tensor], name: str, value: Tensor) -> None:
    if name not in buffers:
        buffers[name] = torch.empty_like(
            value,
            device="cpu",
            pin_memory=value.is_cuda,
            memory_format=torch.contiguous_format,
        )
    buffers[name].copy_(value, non_blocking=True)
