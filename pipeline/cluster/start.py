"""The Ray cluster: starting or joining one, and how large it is."""

import os
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import ray
import yaml
from ray._private import worker
from ray.job_config import JobConfig

from heliograph.pipeline.request.errors import RequestError, one_line
from heliograph.pipeline.request.placement import Nodes, ray_address

GROWS_TO = "HELIOGRAPH_CLUSTER"
"""The variable that names, on every node of a cluster that grows by itself, the file that says how
far: cluster.yaml. Ray's autoscaler knows it, and tells nobody."""
HERE = Path(__file__).parents[3]
"""What holds the package: that workers may import from."""
ATTEMPTS_TO_START = 3
ALONE = {
    # Data tasks take up the processes of those before them, also after a fault. A window may last
    # minutes, and a process that waits so long still takes less than one that is started.
    "RAY_idle_worker_killing_time_threshold_ms": "300000",
    # Nobody announces that the one node will go. The process that listens for it would start with
    # the workers: two seconds of a core of those that a lost worker costs.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "false",
    # Nobody asks what became of each task, or for figures, but every process would tell.
    "RAY_task_events_report_interval_ms": "0",
    "REPORTER_UPDATE_INTERVAL_MS": "30000",
    "RAY_metrics_report_interval_ms": "30000",
}
"""Settings for a Ray of this process's own."""
SECONDS_TO_CONNECT = 10.0
"""To a cluster's head, which does nothing else first."""


def start_ray(lasting_retries: bool = False) -> None:
    """Connect to the cluster that RAY_ADDRESS names, or start Ray on this machine, quietly.

    Args:
        lasting_retries: an actor of a lost node is "unavailable" until the loss is known, which may
            take half a minute; Ray's own pauses, of 0.1 s at first, use up a call's five retries in
            three seconds. Not for training, which has no such bound and would only wait longer.
    """
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # A failed worker is noticed by asking; at Ray's two seconds a restart takes ten more, and each
    # question takes from training.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    if lasting_retries:
        os.environ.setdefault("RAY_task_actor_unavailable_retry_delay_base_ms", "2000")
        os.environ.setdefault("RAY_task_actor_unavailable_retry_max_delay_ms", "30000")
    address = ray_address() or "local"
    for name, value in ALONE.items():
        if address == "local":
            os.environ.setdefault(name, value)
        elif os.environ.get(name) == value:  # from a Ray of its own before
            del os.environ[name]
    _check_answers(address)
    started: Future[None] = Future()
    terminate = signal.getsignal(signal.SIGTERM)

    def start() -> None:
        try:
            # A client's current folder does not reach the workers as it is.
            here = {} if address.startswith("ray://") else {"job_config": FromHere()}
            # It would take a thirtieth of a core from training, for as long as the command runs.
            alone = {"include_dashboard": False} if address == "local" else {}
            connect(address=address, log_to_driver=False, logging_level="ERROR", **here, **alone)
            if address == "local":
                _end_log_monitor()
            _leave_standard_output_alone()
            started.set_result(None)
        except BaseException as error:  # to be raised where it is waited for
            started.set_exception(error)
        threading.Event().wait()  # for ever: what Ray has started ends with this thread

    # Not in the main thread, where an interrupt could end it halfway.
    threading.Thread(target=start, name="ray", daemon=True).start()
    try:
        started.result()
    except KeyboardInterrupt:
        if address == "local":  # which, half started, would leave processes behind for a minute
            started.result()
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, terminate)  # Ray has put a handler there that aborts


class FromHere(JobConfig):  # type: ignore[misc]  # Ray has no types
    """A job whose workers import from where this package is, and from the libraries.

    Ray puts the driver's current folder and its script's before the libraries in its workers' path,
    where a user's own `tokenizers/` would be taken for the library.
    """

    @property
    def _py_driver_sys_path(self) -> list[str]:
        return [str(HERE)]  # a new list for each who asks: what Ray adds to it is not kept

    @_py_driver_sys_path.setter
    def _py_driver_sys_path(self, folders: list[str]) -> None:
        """Ray begins with an empty one."""


def connect(**options: Any) -> None:
    """ray.init. Where that starts Ray on this machine, a node gives its agents fifteen seconds to
    come up and ends itself, and half a minute after it began ray.init gives up: too short where
    many things start at once, and no setting; so it is tried again."""
    for attempt in range(1, ATTEMPTS_TO_START + 1):
        before = set(psutil.Process().children())
        try:
            ray.init(**options)
            return
        except Exception as error:  # it has no other class
            if "timed out during startup" not in str(error) or attempt == ATTEMPTS_TO_START:
                raise
        which = f"{attempt + 1} of {ATTEMPTS_TO_START}"
        print(f"Ray was not there after half a minute; started again ({which})", file=sys.stderr)
        _end_rays_processes(set(psutil.Process().children()) - before)


def _end_rays_processes(children: set[psutil.Process]) -> None:
    """Those of them that run what lies in Ray's package, and theirs; another thread may have
    started others."""
    rays = str(Path(ray.__file__).parent)
    ended = []
    for child in children:
        with suppress(psutil.NoSuchProcess):
            if any(rays in argument for argument in child.cmdline()):
                ended += [child, *child.children(recursive=True)]
    for process in ended:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(ended)


def _end_log_monitor() -> None:
    """It looks into every log file ten times a second, for a driver that does not ask for them."""
    if (node := worker._global_node) is not None:  # the one that this process has started
        node.kill_log_monitor(check_alive=False)


def _leave_standard_output_alone() -> None:
    """What its nodes warn of, Ray prints on standard output, which is for answers: a warning stood
    behind the line of --json (issue 16)."""
    told = worker.print_to_stdstream
    worker.print_to_stdstream = lambda data, ignore_prefix: told(
        data | {"is_err": True}, ignore_prefix
    )


def _check_answers(address: str) -> None:
    """Ray itself tries for a minute, and ends the process where nobody is.

    Raises:
        RequestError: nobody listens there.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():  # local, auto, or what Ray has words for itself
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_CONNECT).close()
    except OSError as error:
        raise RequestError(
            f"RAY_ADDRESS {address!r}: nobody answers there ({one_line(error)}); start Ray on the "
            "head, correct the address, or unset it to run on this machine"
        ) from error


def capacity() -> list[Nodes]:
    """The nodes that the cluster has or, where it grows by itself, can have.

    Raises:
        RequestError: the file that says how far it grows cannot be read.
    """
    if path := os.environ.get(GROWS_TO):
        return _nodes_to_come(path)
    here = ray_address() is None
    return [
        Nodes(
            1,
            node["Resources"].get("CPU", 0.0),
            node["Resources"].get("GPU", 0.0),
            None if here else node["Labels"],
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def _nodes_to_come(path: str) -> list[Nodes]:
    try:
        config = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        kinds, head = config["available_node_types"], config["head_node_type"]
        return [
            Nodes(
                1 if name == head else kind["max_workers"],
                kind["resources"].get("CPU", 0),
                kind["resources"].get("GPU", 0),
                kind.get("labels", {}),
            )
            for name, kind in kinds.items()
        ]
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise RequestError(
            f"{GROWS_TO}: {path!r} does not say which nodes the cluster can have "
            f"({one_line(error)}); valid: a file like cluster.yaml"
        ) from error


def has_room_beside(workers: Sequence[str], cpus_per_worker: float) -> bool:
    """Whether a task that asks for a whole CPU finds one beside the workers; where the cluster
    grows by itself, it will.

    Args:
        workers: for each the id of its node.
    """
    if GROWS_TO in os.environ:
        return True
    on_node = Counter(workers)
    return any(
        node["Resources"].get("CPU", 0.0) - on_node[node["NodeID"]] * cpus_per_worker >= 1
        for node in ray.nodes()
        if node["Alive"]
    )
