"""Says what befalls the workers: to the user, and as events of the run."""

import time
from importlib import import_module
from typing import Any

import ray
from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError
from ray.train.v2._internal.execution.callback import WorkerGroupCallback

from heliograph.pipeline.cluster.start import has_room_beside
from heliograph.pipeline.request import recipe
from heliograph.pipeline.request.errors import JobStopped, one_line
from heliograph.pipeline.tracking.events import log_event
from heliograph.pipeline.training.plan import TrainingPlan

SECONDS_BETWEEN_LOOKS = 5.0
"""At the nodes."""
SECONDS_TO_ANSWER = 10.0
"""For the board, which has little to do."""


class NoRoomForData(WorkerGroupStartupFailedError):  # type: ignore[misc]  # Ray has no types
    """Of the nodes that are left, none has a CPU for the data beside the workers.

    Of this kind because Ray Train ends at other errors, and at this one starts the workers again.
    """


class Reporter(WorkerGroupCallback):  # type: ignore[misc]  # Ray has no types
    """Lives in Ray Train's controller.

    Ray's own interface for users hears of errors only, and hears each of them again and again while
    a node that was announced to go is waited for.
    """

    def __init__(
        self, plan: TrainingPlan, cluster: recipe.Cluster, cpus_per_worker: float, board: Any
    ) -> None:
        self._plan, self._cluster, self._board = plan, cluster, board
        self._cpus_per_worker = cpus_per_worker
        self._places: list[str] = []
        self._had_room, self._looked = False, 0.0
        self._failures, self._workers = 0, cluster.workers
        self._nodes: dict[str, str] = {}
        self._told: set[str] = set()
        self._attempts = 0

    def tell(self, kind: str, what: str) -> None:
        """The user, and the run as an event."""
        self._told.add(kind)
        step = self._plan.checkpoints.newest_state().step
        message = f"{what}; the newest checkpoint is of step {step}"
        self._board.say.remote(message)
        try:
            log_event(self._plan.events, self._plan.run_id, kind, step, message)
        except OSError as error:
            self._board.say.remote(f"that cannot be kept as an event: {one_line(error)}")

    def before_worker_group_start(self, worker_group_context: Any) -> None:
        self._board.enter.remote("starting")
        self._attempts += 1
        if self._attempts > 1:
            self._board.say.remote(
                f"waiting for room for {worker_group_context.num_workers} workers"
            )

    def after_worker_group_start(self, worker_group: Any) -> None:
        """Each worker imports what its loop needs: seconds in which Ray Train, were they spent when
        it hands them the loop, would end at the loss of a worker. Here it starts them again."""
        worker_group.execute(import_module, "heliograph.pipeline.training.loop")

    def after_worker_group_training_start(self, worker_group: Any) -> None:
        """Where workers were lost, joined or moved: how many there are now, and which nodes they
        left. Whether such a node is dead Ray may know only later."""
        workers, before = worker_group.get_workers(), self._nodes
        self._nodes = {each.metadata.node_id: each.metadata.node_ip for each in workers}
        self._places = [each.metadata.node_id for each in workers]
        self._had_room = has_room_beside(self._places, self._cpus_per_worker)
        left = sorted(address for node, address in before.items() if node not in self._nodes)
        wanted, changed = self._cluster.workers, len(workers) != self._workers
        self._workers, self._told, self._attempts = len(workers), set(), 0
        if changed or left:
            no_longer = f", no longer on {', '.join(left)}" if left else ""
            self.tell("workers", f"training on {len(workers)} of {wanted} workers{no_longer}")

    def after_worker_group_poll_status(self, worker_group_status: Any) -> None:
        announced = worker_group_status.get_preemption_info()
        if announced is not None and "preemption" not in self._told:
            nodes = [self._nodes.get(node, node) for node in announced.preempted_node_ids]
            self.tell("preemption", f"{', '.join(nodes)} will go away; taking a checkpoint")
        if (errors := worker_group_status.errors) and "failure" not in self._told:
            self._look_for_a_stop()
            self._told.add("failure")
            self.tell("failure", self._failed(errors, worker_group_status.has_preempted_worker()))

        if self._had_room and time.monotonic() > self._looked + SECONDS_BETWEEN_LOOKS:
            self._looked = time.monotonic()
            self._look_for_room()

    def _look_for_a_stop(self) -> None:
        """What starting again would not mend ends the job at once.

        Raises:
            JobStopped: to Ray Train, which ends at an error that it does not know.
        """
        try:
            failure = ray.get(self._board.failure.remote(), timeout=SECONDS_TO_ANSWER)
        except Exception as error:  # the board's node may be the one that is lost
            self._board.say.remote(f"whether to go on is not known: {one_line(error)}")
            return
        if failure is not None:
            raise JobStopped(failure)

    def _look_for_room(self) -> None:
        """A lost node without workers may have been the one that made their batches.

        Raises:
            NoRoomForData: to Ray Train, which then starts the workers, and their stream, again.
        """
        if not has_room_beside(self._places, self._cpus_per_worker):
            self.tell("workers", "no CPU is left for the data beside the workers; starting again")
            raise NoRoomForData

    def _failed(self, worker_errors: dict[int, Exception], announced: bool) -> str:
        errors = "; ".join(
            f"rank {rank}: {(str(error).strip() or repr(error)).splitlines()[-1][:200]}"
            for rank, error in sorted(worker_errors.items())
        )
        if announced:
            return f"a node went away as announced ({errors}); the others will start again"
        self._failures += 1
        if self._failures > self._cluster.max_failures:
            return f"workers failed too often ({errors})"
        most = self._cluster.max_failures
        return f"workers failed, {self._failures} of at most {most} times ({errors})"
