"""Submitting to the tests' own Ray: its job server, a folder to submit from, and a verb's stand-in
that does as it is told."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray
from typer.testing import CliRunner

from heliograph.jobs.command import application
from heliograph.jobs.status import status
from heliograph.pipeline.cluster import parcel
from heliograph.pipeline.cluster.job_server import JobServer, connect
from heliograph.pipeline.cluster.parcel import SETTINGS
from tests.jobs.conftest import ROOT
from tests.waiting import DEADLINE, wait_until

JOB = """\
import hashlib, os, pathlib, signal, time
import ray
from heliograph.jobs.command import Answer, command, run_alone

def digest():
    return hashlib.sha256(os.environ.get("MLFLOW_TRACKING_PASSWORD", "").encode()).hexdigest()

@command
def evaluate(model: str) -> Answer:
    print("ran", model, flush=True)
    if model == "wait":
        time.sleep(600)
    if model == "list":
        print(*sorted(map(str, pathlib.Path.cwd().rglob("*"))), sep="\\n")
        return Answer("", {})
    if model.startswith("/"):  # until there is such a file, whoever asks it to stop
        signal.signal(signal.SIGTERM, lambda *_: print("asked to stop", flush=True))
        while not os.path.exists(model):
            time.sleep(0.1)
        print("released", flush=True)
        return Answer("", {})
    if model == "secret":
        os.environ["RAY_ADDRESS"] = "CLUSTER"
        ray.init(log_to_driver=False)
        print("driver", digest())
        print("worker", ray.get(ray.remote(num_cpus=0)(digest).remote()))
        return Answer("", {})
    return Answer("", {"model": model}, exit_code=int(model))

run_alone(evaluate)
"""
"""Stands in for a verb's module in the folder that is sent: that is the code that a job runs.

It says which Ray is its own: the job server tells a driver of whichever it finds on its machine.
"""


@contextmanager
def job_server(say: Callable[[str], None] = print) -> Iterator[JobServer]:
    """The job server of the tests' Ray, once it takes jobs: its agent starts after Ray."""
    from ray._private.worker import get_dashboard_url

    before = os.environ.get("RAY_API_SERVER_ADDRESS")
    server = connect(f"http://{get_dashboard_url()}", say)

    def takes_jobs() -> bool:
        try:
            server.submit_job(entrypoint="true")
        except RuntimeError:
            return False
        return True

    wait_until(takes_jobs)
    yield server
    os.environ.pop("RAY_API_SERVER_ADDRESS", None)
    if before is not None:
        os.environ["RAY_API_SERVER_ADDRESS"] = before


def submit_from(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to submit from; its jobs find this Python and this source tree."""
    monkeypatch.chdir(folder)
    (folder / "recipe.yaml").write_text(
        "name: tiny\ndata: {train: nowhere.parquet, validation: nowhere.parquet}\n"
        "train: {steps: 2}\nstorage: /tmp\n"
    )
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(parcel, "SETTINGS", (*SETTINGS, "PATH", "PYTHONPATH"))
    return folder


def put_stand_in(folder: Path) -> Path:
    """A folder whose `evaluate` ends with the exit code that it is given as its model."""
    jobs = folder / "heliograph" / "jobs"
    jobs.mkdir(parents=True)
    address = ray.get_runtime_context().gcs_address
    (jobs / "evaluate.py").write_text(JOB.replace("CLUSTER", address))
    # All else is where it was.
    for package, real in ((jobs.parent, "heliograph"), (jobs, "jobs")):
        (package / "__init__.py").write_text(f"__path__.append({str(ROOT / real)!r})\n")
    return folder


def run(verb: Any, *words: str) -> Any:
    return CliRunner().invoke(application(verb), [*words, "--json"])


def result_of(done: Any) -> Any:
    return json.loads(done.stdout.splitlines()[-1])


class Terminal:
    """A terminal that `heliograph submit` runs at."""

    def __init__(self) -> None:
        self._ours, self.theirs = pty.openpty()
        self._read = b""

    def read_until(self, text: str) -> str:
        """All that it shows, once that is in it."""
        deadline = time.monotonic() + DEADLINE
        while text.encode() not in self._read:
            ready, _, _ = select.select([self._ours], [], [], deadline - time.monotonic())
            assert ready, self._read
            self._read += os.read(self._ours, 1000)
        return self._read.decode()

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())


def start_submit(
    folder: Path,
    terminal: Terminal | None,
    model: str = "wait",
    options: Sequence[str] = (),
) -> tuple[subprocess.Popen[bytes], str]:
    """`heliograph submit` of a job that waits; returns it and the job's name once the job runs."""
    log = folder / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            # -P: not the stand-in, which is in this folder for the job.
            [sys.executable, "-P", "-c", WITH_SETTINGS, "submit", *options, "evaluate", model],
            stdin=terminal.theirs if terminal else subprocess.DEVNULL,
            stdout=file,
            stderr=terminal.theirs if terminal else file,
            start_new_session=True,
            # A shell's background commands ignore it, and what they start would inherit that.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )

    def waits() -> bool:
        assert process.poll() is None, log.read_text()
        return f"ran {model}" in log.read_text()

    wait_until(waits, log.read_text)
    rows = result_of(run(status))["jobs"]
    return process, str(rows[0]["job"])


WITH_SETTINGS = """
from heliograph.jobs.cli import main
from heliograph.pipeline.cluster import parcel
parcel.SETTINGS = (*parcel.SETTINGS, "PATH", "PYTHONPATH")
main()
"""
