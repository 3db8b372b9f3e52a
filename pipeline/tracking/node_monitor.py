"""What a node's CPU, memory, disk, network and GPU do, as metrics of the run."""

import fcntl
import os
import tempfile
import time
from pathlib import Path

from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from heliograph.pipeline.tracking.metric_log import MetricLog


def monitor_node(uri: str, run_id: str, spools: str, started: float, node: str) -> "NodeMonitor":
    """Log this node's use of its resources as system/NODE/… until `.finish()`.

    Several processes of a node may call it: one at a time reports, another when that one has ended.

    Args:
        spools: the folder of the job's spools; the node's own is made below.
        started: when the job's run was opened, in seconds since 1970. A measurement's step is the
            seconds since then, so that all nodes and all starts of the job share one axis and a
            step is never logged twice, without asking the server.
        node: the name of this one.
    """
    monitor = NodeMonitor(uri, run_id, spools, started, node)
    monitor.start()
    return monitor


class NodeMonitor(SystemMetricsMonitor):  # type: ignore[misc]  # MLflow has no types
    """MLflow's monitor measures; what it measures goes through a `MetricLog`.

    MLflow's own loop asks the server for the run each time, and ends when that does not answer.
    """

    def __init__(self, uri: str, run_id: str, spools: str, started: float, node: str) -> None:
        super().__init__(run_id, node_id=node, tracking_uri=uri)
        self._started = started
        name = f"{self._metrics_prefix}{self.node_id}".replace("/", "-")
        self._lock = Path(tempfile.gettempdir()) / f"heliograph-{run_id}-{name}.lock"
        self._log_arguments = uri, run_id, f"{spools}/{name}"
        self._log: MetricLog | None = None

    def monitor(self) -> None:
        """Measure until `finish`; in a thread of its own."""
        while True:
            with self._lock.open("w") as lock:
                if self._locked(lock.fileno()):
                    try:
                        self._report()
                    finally:
                        self._lock.unlink(missing_ok=True)
                    return
            if self._shutdown_event.wait(self.sampling_interval):
                return

    def _report(self) -> None:
        self._log = MetricLog(*self._log_arguments)
        while True:
            for _ in range(self.samples_before_logging):
                self.collect_metrics()
                if self._shutdown_event.wait(self.sampling_interval):
                    return
            self.publish_metrics(self.aggregate_metrics())

    def publish_metrics(self, metrics: dict[str, float]) -> None:
        assert self._log is not None
        prefix = f"{self._metrics_prefix}{self.node_id}/"
        values = {prefix + key: value for key, value in metrics.items()}
        self._log.log(int(time.time() - self._started), values)
        for monitor in self.monitors:
            monitor.clear_metrics()

    def finish(self, timeout: float = 10.0) -> None:
        """Stop; what does not arrive within so many seconds waits in the spool."""
        super().finish()
        if self._log is not None:
            self._log.close(timeout)

    def _locked(self, lock: int) -> bool:
        """Whether this process is the one that reports; the lock ends with the process. Of a file
        that the one before has removed since it was opened here, it says nothing."""
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return os.path.samestat(os.fstat(lock), self._lock.stat())
        except (BlockingIOError, FileNotFoundError):
            return False
