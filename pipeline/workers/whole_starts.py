"""Where Ray Train fails to start its workers, it lets go of those that had begun.

Ray Train 2.60 forgets the workers and their placement group when a worker dies after all of them
were created and before their loop runs. They then keep their CPUs: the next start waits for room
that is never given back, or its data tasks do.
"""

from typing import Any

from ray.train.v2._internal.execution.callback import ControllerCallback
from ray.train.v2._internal.execution.controller.controller import TrainController
from ray.train.v2._internal.execution.worker_group.worker_group import WorkerGroup


class WholeWorkerGroup(WorkerGroup):  # type: ignore[misc]  # Ray has no types
    """Workers that have started, or leave nothing behind."""

    def _start(self) -> None:
        try:
            super()._start()
        except Exception:
            if (begun := self._worker_group_state) is not None:
                begun.shutdown()
                self._clear_state()
            raise


class WholeStarts(ControllerCallback):  # type: ignore[misc]  # Ray has no types
    """Has Ray Train's controller, in whose process this lives, start such groups."""

    def after_controller_start(self, train_run_context: Any) -> None:  # noqa: ARG002
        TrainController.worker_group_cls = WholeWorkerGroup
