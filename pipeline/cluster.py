"""The Ray cluster: starting or joining one, and what a job may ask of it."""

import math
import os

import ray
from ray.train import ScalingConfig

from pipeline import recipe
from pipeline.errors import RequestError


def start_ray() -> None:
    """Connect to the cluster that RAY_ADDRESS names, or start Ray on this machine, quietly."""
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # A failed worker is noticed by asking; at Ray's two seconds a restart takes ten more.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    ray.init(
        address=os.environ.get("RAY_ADDRESS", "local"), log_to_driver=False, logging_level="ERROR"
    )


def capacity() -> tuple[float, float]:
    """CPUs and GPUs that the cluster has or, where it grows by itself, can grow to."""
    now = ray.cluster_resources()
    # Ray publishes the autoscaler's limits for its own libraries only; None: a fixed cluster.
    limits = ray._private.state.state.get_max_resources_from_cluster_config() or {}
    cpus, gpus = (max(now.get(name, 0), limits.get(name, 0)) for name in ("CPU", "GPU"))
    return cpus, gpus


def place(cluster: recipe.Cluster, cpus: float, gpus: float) -> ScalingConfig:
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
    return ScalingConfig(
        num_workers=workers, use_gpu=use_gpu, resources_per_worker=_resources(share, use_gpu)
    )


def _cpu_share(cpus: float, workers: int) -> float:
    """An even share of what remains beside one CPU for the data, in steps of a tenth."""
    share = (cpus - min(1.0, cpus / 2)) / workers
    return math.floor(share) if share >= 1 else math.floor(share * 10) / 10


def _resources(cpus: float, use_gpu: bool) -> dict[str, float]:
    return {"CPU": cpus, "GPU": 1} if use_gpu else {"CPU": cpus}
