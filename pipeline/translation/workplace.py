"""Where a driver's models translate.

In its own process or, where it has joined a cluster, on a node of that: the head, where drivers
are, may have neither CPUs for such work nor a GPU (issue 17, 3).

Its models share one actor, so that two that are compared are so on the same machine. Whatever was
opened is opened again where that machine is lost.
"""

import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray
import torch

from heliograph.pipeline.checkpoints.model_folder import pack_model, unpack_model
from heliograph.pipeline.cluster.start import capacity, start_ray
from heliograph.pipeline.request.decoding import Decoding
from heliograph.pipeline.request.placement import Pool, place_pool, ray_address
from heliograph.pipeline.translation.engines import ENGINE, Engine, open_engine
from heliograph.pipeline.translation.translate import RunsModel, Translation

CPUS = 4
"""Of a node without a GPU, at most: more threads bring a beam search little."""
ENDURED_DEATHS = 5
"""Of the actor, over the same sentences: of so many the sentences are the reason."""


class Workplace:
    """Opened once for all models that are to be compared."""

    def open(self, folder: str | Path, engine: Engine = ENGINE) -> RunsModel:
        """The model of a folder on this machine, run by an engine.

        Raises:
            RequestError: as `open_engine`, on a cluster when it first translates; or the cluster
                has nothing to translate with.
        """
        if self._pool is None:
            return open_engine(folder, engine)
        return _Elsewhere(self._actor, ray.put(pack_model(folder, engine)), engine)

    @cached_property
    def device(self) -> str:
        """What it translates on: a translation may be another on "cuda" than on "cpu"."""
        gpu = torch.cuda.is_available() if self._pool is None else self._pool.gpus > 0
        return "cuda" if gpu else "cpu"

    @cached_property
    def _pool(self) -> Pool | None:
        """What it gets of the cluster; None: this process has joined none."""
        if ray_address() is None:
            return None
        start_ray(lasting_retries=True)
        return place_pool(capacity(), CPUS)

    @cached_property
    def _actor(self) -> Any:
        assert self._pool is not None
        has = "a GPU" if self._pool.gpus else f"{self._pool.cpus:g} CPUs"
        print(f"translating on a node of the cluster, with {has}", file=sys.stderr, flush=True)
        placed = ray.remote(
            num_cpus=self._pool.cpus,
            num_gpus=self._pool.gpus,
            max_restarts=-1,
            max_task_retries=ENDURED_DEATHS,
        )
        return placed(_Desk).remote()


class _Elsewhere(RunsModel):
    """A model that an actor runs."""

    def __init__(
        self, actor: Any, files: "ray.ObjectRef[dict[str, bytes]]", engine: Engine
    ) -> None:
        self._actor, self._files, self._engine = actor, files, engine

    def alternatives(
        self,
        sentences: Sequence[str],
        settings: Decoding,
        prefixes: Sequence[str] | None = None,
    ) -> list[list[Translation]]:
        # In a list: else the files would be sent with each call, opened already or not.
        call = self._actor.alternatives.remote(
            [self._files], self._engine, sentences, settings, prefixes
        )
        found: list[list[Translation]] = ray.get(call)
        return found


class _Desk:
    """The actor: models by the files that they came as."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[RunsModel, TemporaryDirectory[str]]] = {}

    def alternatives(
        self,
        files: list["ray.ObjectRef[dict[str, bytes]]"],
        engine: Engine,
        sentences: Sequence[str],
        settings: Decoding,
        prefixes: Sequence[str] | None,
    ) -> list[list[Translation]]:
        key = files[0].hex()
        if key not in self._open:
            folder = TemporaryDirectory(prefix="heliograph-")  # an engine may read it later, too
            unpack_model(ray.get(files[0]), folder.name)
            self._open[key] = open_engine(folder.name, engine), folder
        return self._open[key][0].alternatives(sentences, settings, prefixes)
