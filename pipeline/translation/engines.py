"""What runs a model: torch, or CTranslate2 where the model was exported to it.

All engines search alike and take settings alike. Their scores differ by rounding, so another engine
makes another string of the same sentence now and then, and whatever is kept of a model's
translations is kept by engine.
"""

from pathlib import Path
from typing import Literal

from heliograph.pipeline.request.errors import RequestError, did_you_mean
from heliograph.pipeline.translation.exports import PRECISIONS
from heliograph.pipeline.translation.translate import RunsModel, Translator

Engine = Literal["torch", "ctranslate2", "ctranslate2-int8", "ctranslate2-float16"]

ENGINE: Engine = "torch"
"""What translates when nobody asks for another: it needs no export. The gate uses no other."""

_THREADS_PER_COPY = 4
"""On a CPU. CTranslate2's threads share the weights, and so the cache that these lie in."""


def cpus_per_copy(engine: Engine) -> int:
    """How many CPUs a process that runs an engine can make good use of, at most."""
    return 1 if engine == "torch" else _THREADS_PER_COPY


def open_engine(folder: str | Path, engine: Engine = ENGINE) -> RunsModel:
    """The model of a folder, run by an engine.

    Raises:
        RequestError: there is no such engine, the folder holds no model for it, or the machine
            cannot run it.
    """
    if engine == "torch":
        return Translator.load(folder)
    if engine not in PRECISIONS:
        raise RequestError(
            f"engine {engine!r} is not known; {did_you_mean(engine, ['torch', *PRECISIONS])}"
        )
    from heliograph.pipeline.translation.fast_engine import (
        FastTranslator,  # which loads another library
    )

    return FastTranslator(folder, engine)
