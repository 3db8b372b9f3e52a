"""What a job may ask of a cluster. Imports nothing heavy: the impossible is refused at once."""

import math
import os
from dataclasses import dataclass
from pathlib import Path

from pipeline import recipe
from pipeline.errors import RequestError


@dataclass(frozen=True)
class Placement:
    """The training workers and what each of them gets: CPUs and, with `use_gpu`, one GPU."""

    workers: int
    cpus_per_worker: float
    use_gpu: bool


def check_here(cluster: recipe.Cluster) -> None:
    """Where Ray will start on this machine, judge the request before anything is loaded.

    Raises:
        RequestError: as `place`.
    """
    if "RAY_ADDRESS" not in os.environ:
        gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))
        place(cluster, os.cpu_count() or 1, gpus)


def place(cluster: recipe.Cluster, cpus: float, gpus: float) -> Placement:
    """What each worker gets on a cluster of this size; something is always left for the data.

    Ray waits for ever for resources that do not exist, and a pipeline whose workers took every CPU
    hangs with them, so both are refused here.

    Raises:
        RequestError: the cluster cannot hold the workers that the recipe asks for.
    """
    workers = cluster.workers
    use_gpu = gpus >= workers if cluster.gpu is None else cluster.gpu
    if use_gpu and workers > gpus:
        raise RequestError(
            f"cluster.workers: {workers} GPU workers, but the cluster has {gpus:g} GPUs; "
            f"valid: 1 to {gpus:g}, or cluster.gpu=false"
        )
    if not use_gpu and workers > cpus:
        raise RequestError(
            f"cluster.workers: {workers} workers, but the cluster has {cpus:g} CPUs; "
            f"valid: 1 to {math.floor(cpus)}"
        )
    share = cluster.cpus_per_worker or (1.0 if use_gpu else _cpu_share(cpus, workers))
    if workers * share > cpus - min(1.0, cpus / 2):
        raise RequestError(
            f"cluster.cpus_per_worker: {workers} workers × {share:g} CPUs leave nothing of the "
            f"cluster's {cpus:g} for the data; valid: at most {_cpu_share(cpus, workers):g}"
        )
    return Placement(workers, share, use_gpu)


def _cpu_share(cpus: float, workers: int) -> float:
    """An even share of what remains beside one CPU for the data, in steps of a tenth."""
    share = (cpus - min(1.0, cpus / 2)) / workers
    return math.floor(share) if share >= 1 else math.floor(share * 10) / 10
