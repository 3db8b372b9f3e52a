"""A model on disk: sizes, weights and tokenizer, and nothing that would have to be unpickled.

Checkpoints, the registry's artifacts and MODEL on the command line all hold these three files, and
`recipe.yaml` beside them where a recipe made the model.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from heliograph.model import Transformer, TransformerConfig
from heliograph.pipeline.request import recipe_file
from heliograph.pipeline.request.decoding import Evaluate
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.steps.tokenizer import Tokenizer

CONFIG, WEIGHTS, TOKENIZER = "model.json", "model.safetensors", "tokenizer.json"
RECIPE = "recipe.yaml"
_NOT_FOR_TRANSLATING = {"evaluation.parquet", "optimizer.safetensors", "README.md"}


def save_model(folder: str | Path, model: Transformer, tokenizer: Tokenizer) -> None:
    """Write the three files into `folder`, each of them whole or not at all.

    A tied parameter is stored once, under its first name. `model.json` comes last, and a folder
    without it is no model.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: p.detach().cpu().contiguous() for name, p in model.named_parameters()}
    sizes = json.dumps(asdict(model.config), indent=2)
    _write(folder / WEIGHTS, lambda path: save_file(weights, path))
    _write(folder / TOKENIZER, lambda path: path.write_text(tokenizer.to_json(), encoding="utf-8"))
    _write(folder / CONFIG, lambda path: path.write_text(sizes, encoding="utf-8"))


def load_model(folder: str | Path) -> tuple[Transformer, Tokenizer]:
    """The model, on the CPU and in evaluation mode, and its tokenizer.

    Raises:
        RequestError: a file is missing, damaged, or does not fit the others.
    """
    folder = Path(folder)
    for name in (CONFIG, WEIGHTS, TOKENIZER):
        if not (folder / name).is_file():
            raise RequestError(
                f"{str(folder)!r} is not a model folder: {name} is missing; "
                f"it must hold {CONFIG}, {WEIGHTS} and {TOKENIZER}"
            )
    try:
        sizes = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        model = Transformer(TransformerConfig(**sizes))
        load_weights(model, load_file(folder / WEIGHTS))
    except (ValueError, TypeError, OSError, SafetensorError) as error:
        raise RequestError(f"{str(folder)!r} holds no usable model: {error}") from error
    try:
        tokenizer = Tokenizer.load(str(folder / TOKENIZER))
    except Exception as error:  # the library raises nothing more specific
        raise RequestError(
            f"{str(folder / TOKENIZER)!r} is no usable tokenizer: {error}"
        ) from error
    return model.eval(), tokenizer


def read_settings(folder: str | Path) -> Evaluate:
    """How the model is to be decoded: as its recipe says, or by default if it has none.

    Raises:
        RequestError: the recipe beside the model is not one.
    """
    return recipe_file.read_evaluate(Path(folder) / RECIPE)


def read_max_characters(folder: str | Path) -> int:
    """Characters of the longest side of a pair that the model was trained on, as its recipe says.

    Raises:
        RequestError: the recipe beside the model is not one.
    """
    return recipe_file.read_max_characters(Path(folder) / RECIPE)


def pack_model(folder: str | Path, engine: str) -> dict[str, bytes]:
    """The files that an engine needs of a model, by their names in its folder, to be sent to other
    nodes: the folder may be on this one only."""
    folder = Path(folder)
    paths = sorted([*folder.iterdir(), *folder.glob(f"{engine}/*")])
    names = {path.relative_to(folder).as_posix(): path for path in paths if path.is_file()}
    return {
        name: path.read_bytes() for name, path in names.items() if name not in _NOT_FOR_TRANSLATING
    }


def unpack_model(files: Mapping[str, bytes], folder: str | Path) -> None:
    """Write what `pack_model` gave."""
    for name, content in files.items():
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def load_weights(model: Transformer, weights: dict[str, torch.Tensor]) -> None:
    """Set every parameter of `model`, by the names that `save_model` gave them.

    Raises:
        ValueError: names or shapes differ.
    """
    parameters = dict(model.named_parameters())
    if unlike := sorted(parameters.keys() ^ weights.keys()):
        raise ValueError(f"weights and sizes do not fit: {', '.join(unlike[:5])} on one side only")
    with torch.no_grad():
        for name, parameter in parameters.items():
            if parameter.shape != weights[name].shape:
                shapes = f"{list(weights[name].shape)}, not {list(parameter.shape)}"
                raise ValueError(f"weights and sizes do not fit: {name} is {shapes}")
            parameter.copy_(weights[name])


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Through a temporary name and down to the disk, so that no reader ever sees half a file."""
    temporary = path.with_name(f".{path.name}.writing")
    write(temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
