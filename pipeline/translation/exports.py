"""A model folder's exports: the model once more, in the form of a faster engine.

    MODEL_FOLDER/ctranslate2-int8/   model.bin, config.json, shared_vocabulary.json, export.json

`export.json` is written last and seals the others: it names the weights that were exported and the
checksum of each file. An export without it was never finished, and is not there.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from heliograph.pipeline.checkpoints.model_folder import WEIGHTS
from heliograph.pipeline.request.errors import RequestError

SEAL = "export.json"

Precision = Literal["float32", "int8", "float16"]

PRECISIONS: dict[str, Precision] = {
    "ctranslate2": "float32",
    "ctranslate2-int8": "int8",
    "ctranslate2-float16": "float16",
}
"""The exports that an engine runs, by the name of engine and folder, and how their matrices are
kept."""


@dataclass(frozen=True)
class Seal:
    """What an export was made from, and its files.

    Attributes:
        weights: SHA-256 of the model.safetensors that was exported.
        library: what wrote the export, and its version.
        files: SHA-256 of each file, by its name.
    """

    weights: str
    library: str
    files: dict[str, str]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, sort_keys=True)


def write_seal(folder: Path, model_folder: Path, library: str) -> None:
    """Seal the files of `folder`, an export of the model in `model_folder`."""
    files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    seal = Seal(sha256(model_folder / WEIGHTS), library, files)
    (folder / SEAL).write_text(seal.to_json(), encoding="utf-8")


def read_seal(folder: Path) -> Seal | None:
    """None: there is no export, or its writer was killed before it was whole."""
    try:
        return Seal(**json.loads((folder / SEAL).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def find_exports(model_folder: Path) -> list[str]:
    """The names of its whole exports."""
    return [name for name in PRECISIONS if read_seal(model_folder / name)]


def check_export(model_folder: Path, name: str) -> Path:
    """The folder of an export, after its files were checked.

    Raises:
        RequestError: it is not there, was made from other weights, or was changed since.
    """
    folder = model_folder / name
    seal = read_seal(folder)
    if seal is None:
        there = ", ".join(find_exports(model_folder)) or "none"
        raise RequestError(
            f"the model has no export {name!r} (it has {there}); `heliograph export MODEL "
            f"--format {name}` adds it, and engine 'torch' needs none"
        )
    if seal.weights != sha256(model_folder / WEIGHTS):
        raise RequestError(
            f"{str(folder)!r} is the export of other weights than {WEIGHTS} beside it; remove it "
            "and export again"
        )
    for file, expected in seal.files.items():
        if not (folder / file).is_file() or sha256(folder / file) != expected:
            raise RequestError(
                f"{str(folder / file)!r} was changed or removed since it was exported; remove "
                f"{name} and export again"
            )
    return folder


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
