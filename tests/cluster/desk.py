"""A host that jobs are submitted from, and a tracking server on another."""

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen
from typing import Any

from tests.cluster.hosts import ROOT, Cluster, Host
from tests.tracking_server import SENDS_NOTICES
from tests.waiting import LONG, wait_until

SECRET = "planted-8d7e21"


class Desk:
    """A host from which jobs are submitted, with a checkout and a tracking server's secrets."""

    def __init__(self, cluster: Cluster, tracking: str) -> None:
        self.cluster, self.host = cluster, cluster.lan.add()
        self.project = self.host.folder / "project"
        for package in ("heliograph", "jobs", "model", "pipeline", "recipes"):
            shutil.copytree(ROOT / package, self.project / package, symlinks=True)
        self.environment = {
            name: value
            for name, value in cluster.environment.items()
            if name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "PATH")
        } | {
            "RAY_API_SERVER_ADDRESS": f"http://{cluster.head.address}:8265",
            "MLFLOW_TRACKING_URI": tracking,
            "MLFLOW_TRACKING_USERNAME": "heliograph",
            "MLFLOW_TRACKING_PASSWORD": SECRET,
            "HELIOGRAPH_WEBHOOK_SECRET": SECRET + SECRET,
            "PYTHONPATH": "",
        }

    def start(self, *words: str) -> "Command":
        out = self.host.folder / f"out-{time.monotonic_ns()}"
        words = (sys.executable, "-m", "heliograph.jobs.cli", *words)
        return Command(self.host.run(words, self.environment, self.project, out), out, self.host)

    def heliograph(self, *words: str) -> tuple[int, str]:
        """A command to its end: its exit code, and its standard output."""
        command = self.start(*words)
        return command.process.wait(LONG), command.said()


class Command:
    def __init__(self, process: "Popen[bytes]", out: Path, host: Host) -> None:
        self.process, self._out, self._host = process, out, host

    def said(self) -> str:
        """On its standard output, so far."""
        return self._out.read_text()

    def until(self, condition: Callable[[], Any]) -> None:
        def told() -> str:
            return self.said() + self._host.log.read_text()

        def holds() -> Any:
            assert self.process.poll() is None, told()
            return condition()

        wait_until(holds, told, pause=0.2, seconds=LONG)

    def interrupt(self) -> None:
        """Ctrl-C, without a terminal that could be asked."""
        os.killpg(self.process.pid, signal.SIGINT)


def start_mlflow(host: Host, address: str | None = None) -> str:
    """An MLflow server on this host, at all of its addresses or at this one alone; its URL."""
    address = address or host.address
    words = ["-m", "mlflow", "server", "--host", address, "--port", "5000", "--workers", "1"]
    words += ["--backend-store-uri", f"sqlite:///{host.folder}/mlflow.db"]
    words += ["--artifacts-destination", str(host.folder / "artifacts")]
    words += ["--allowed-hosts", f"{address}:5000"]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    server = host.run([sys.executable, *words], quiet | SENDS_NOTICES)

    def runs() -> bool:
        assert server.poll() is None, host.log.read_text()
        return "Application startup complete" in host.log.read_text()

    wait_until(runs, host.log.read_text, pause=0.2)
    return f"http://{address}:5000"
