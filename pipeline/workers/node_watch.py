"""What every node of the cluster does, as system metrics of the run: those that join later, too."""

import logging
import threading
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from heliograph.pipeline.tracking.node_monitor import NodeMonitor, monitor_node
from heliograph.pipeline.training.plan import TrainingPlan

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LOOKS = 10.0
SECONDS_TO_FINISH = 2.0
"""What is not delivered by then waits in the node's spool."""


class NodeWatch:
    """Watches the nodes while its `with` block runs: this process its own node, a small actor each
    of the others. An actor holds no CPU, and ends with this process."""

    def __init__(self, plan: TrainingPlan) -> None:
        self._plan = plan
        self._own: NodeMonitor | None = None
        self._actors: dict[str, Any] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="node-watch", daemon=True)

    def __enter__(self) -> "NodeWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(SECONDS_TO_FINISH)
        finished = [actor.finish.remote() for actor in self._actors.values()]
        if self._own is not None:
            self._own.finish(SECONDS_TO_FINISH)
        if finished:
            ray.wait(finished, num_returns=len(finished), timeout=SECONDS_TO_FINISH)

    def _watch(self) -> None:
        own = ray.get_runtime_context().get_node_id()
        while True:
            try:
                alive = {node["NodeID"]: _name(node) for node in ray.nodes() if node["Alive"]}
                for node_id in self._actors.keys() - alive.keys():
                    del self._actors[node_id]
                if self._own is None and own in alive:
                    self._own = self._monitor(alive[own])
                for node_id in alive.keys() - self._actors.keys() - {own}:
                    self._actors[node_id] = self._start_actor(node_id, alive[node_id])
            except Exception as error:  # it must not end because Ray's head does not answer
                logger.warning("the nodes cannot be looked at: %s", error)
            if self._ended.wait(SECONDS_BETWEEN_LOOKS):
                return

    def _monitor(self, name: str) -> NodeMonitor:
        plan = self._plan
        return monitor_node(plan.tracking_uri, plan.run_id, plan.spools, plan.run_started, name)

    def _start_actor(self, node_id: str, name: str) -> Any:
        there = NodeAffinitySchedulingStrategy(node_id, soft=False)
        actor = ray.remote(num_cpus=0, scheduling_strategy=there)(_RemoteMonitor)
        plan = self._plan
        return actor.remote(plan.tracking_uri, plan.run_id, plan.spools, plan.run_started, name)


class _RemoteMonitor:
    """A node's monitor in an actor there."""

    def __init__(self, uri: str, run_id: str, spools: str, started: float, name: str) -> None:
        self._monitor = monitor_node(uri, run_id, spools, started, name)

    def finish(self) -> None:
        self._monitor.finish(SECONDS_TO_FINISH)


def _name(node: dict[str, Any]) -> str:
    """As it was named when Ray was started there, else the host's: Ray's default is its address."""
    given = str(node.get("NodeName") or "")
    return given if given not in ("", node["NodeManagerAddress"]) else node["NodeManagerHostname"]
