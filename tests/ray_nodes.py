"""A Ray cluster of several nodes on this machine, to lose some of them."""

import os
import random
import re
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType

import psutil
from ray.cluster_utils import Cluster

_NO_TASKS = re.compile(
    r"ray::(IDLE|RayTrainWorker|execute\.|\w*(Actor|Agent|Board|Cleaner|Controller|Coordinator|Manager|Monitor|Supervisor|Watcher))"
)


def is_worker(process: psutil.Process) -> bool:
    """Whether it trains, or is being set up for that."""
    return title_of(process).startswith(("ray::RayTrainWorker", "ray::execute."))


def is_data_task(process: psutil.Process) -> bool:
    """Whether it makes batches at this moment."""
    title = title_of(process)
    return title.startswith("ray::") and _NO_TASKS.match(title) is None


def title_of(process: psutil.Process) -> str:
    """Its command line; "" where it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has just ended
        return ""


class RayNodes:
    """A head and other nodes; a context manager. This process itself is not connected to it.

    Nodes are added and lost in the main thread only: Ray sets signal handlers while it does that.

    Args:
        cpus_per_node: the head's first.
    """

    def __init__(self, cpus_per_node: Sequence[int]) -> None:
        self._cpus = list(cpus_per_node)
        self._added = 0

    def __enter__(self) -> "RayNodes":
        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": self._cpus[0],
                "include_dashboard": False,
                "node_name": "head",
            },
        )
        for cpus in self._cpus[1:]:
            self.add(cpus)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._cluster.shutdown()

    def environment(self) -> dict[str, str]:
        """What a driver needs to find it and to be let in."""
        token = {name: value for name, value in os.environ.items() if name.startswith("RAY_AUTH_")}
        return {"RAY_ADDRESS": self._cluster.address} | token

    def add(self, cpus: int) -> None:
        self._added += 1
        self._cluster.add_node(num_cpus=cpus, node_name=f"node-{self._added}")

    def replace_one(self, draw: random.Random) -> None:
        """`lose_one`, and another one joins."""
        self.add(self.lose_one(draw))

    def lose_one(self, draw: random.Random, known_after: float = 0.0) -> int:
        """SIGKILL to all processes of one node that is not the head. Returns its CPUs.

        Args:
            known_after: so many seconds pass, at the least, before the cluster knows that the node
                is lost, as when it must find out by asking.
        """
        victim = draw.choice(sorted(self._cluster.worker_nodes, key=lambda node: node.unique_id))
        with self._knowing_nothing(known_after):
            self._cluster.remove_node(victim, allow_graceful=False)
        return int(victim._ray_params.num_cpus)

    @contextmanager
    def _knowing_nothing(self, seconds: float) -> Iterator[None]:
        """The process that keeps the cluster's state is stopped for so long, from now on."""
        if not seconds:
            yield
            return
        (keeper,) = self._cluster.head_node.all_processes["gcs_server"]
        os.kill(keeper.process.pid, signal.SIGSTOP)
        resume = threading.Timer(seconds, os.kill, [keeper.process.pid, signal.SIGCONT])
        resume.start()
        try:
            yield
        finally:
            resume.join()

    def names(self) -> list[str]:
        """Of all but the head."""
        return [node._ray_params.node_name for node in self._cluster.worker_nodes]

    def processes(self) -> list[psutil.Process]:
        """All processes of all nodes but the head's."""
        found = []
        for node in self._cluster.worker_nodes:
            for infos in node.all_processes.values():
                for info in infos:
                    try:
                        found += psutil.Process(info.process.pid).children(recursive=True)
                    except psutil.NoSuchProcess:
                        continue
        return found
