"""Corpora that are prepared from files, with Ray."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from heliograph.pipeline.corpus.corpus import Corpus, prepare_corpus
from heliograph.pipeline.corpus.found_data import find_data
from heliograph.pipeline.corpus.readings import READINGS
from heliograph.pipeline.request.data import Data, Location

PAIRS = [(f"source sentence {i}", f"Zielsatz Nummer {i}") for i in range(6_000)]


def data(**values: Any) -> Data:
    return Data(**{"train": "-", "validation": "-", "source": "en", "target": "de"} | values)


def prepare(
    location: Location, options: Data, piece_rows: int, storage: str, enough: int | None = None
) -> Corpus:
    found = find_data(location, options, "train", storage)
    return prepare_corpus(found, piece_rows, storage, enough)


def write(path: Path, pairs: Sequence[tuple[Any, Any]]) -> None:
    lines = [json.dumps({"en": en, "de": de}) for en, de in pairs]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def files_in(storage: str) -> list[Path]:
    """But for what was read, which stays for the next start."""
    found = [path for path in Path(storage).rglob("*") if path.is_file()]
    return [path for path in found if READINGS not in path.parts]
