"""The Ray cluster: starting or joining one, and how large it is."""

import os
import signal
import threading

import ray


def start_ray() -> None:
    """Connect to the cluster that RAY_ADDRESS names, or start Ray on this machine, quietly."""
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # A failed worker is noticed by asking; at Ray's two seconds a restart takes ten more.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    before = signal.getsignal(signal.SIGTERM)
    ray.init(
        address=os.environ.get("RAY_ADDRESS", "local"), log_to_driver=False, logging_level="ERROR"
    )
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)  # Ray has put its own there, which just exits


def capacity() -> tuple[float, float]:
    """CPUs and GPUs that the cluster has or, where it grows by itself, can grow to."""
    now = ray.cluster_resources()
    # Ray publishes the autoscaler's limits for its own libraries only; None: a fixed cluster.
    limits = ray._private.state.state.get_max_resources_from_cluster_config() or {}
    cpus, gpus = (max(now.get(name, 0), limits.get(name, 0)) for name in ("CPU", "GPU"))
    return cpus, gpus
