"""One recipe file, unchanged: on a Ray that starts here, on one that runs, and as a job."""

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.recorded_job import Records, pairs_of, records
from tests.small_job import ROOT, Command, small_recipe
from tests.waiting import DEADLINE, LONG, wait_until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(4 * LONG)]

SUBMIT = """
import sys
from ray.job_submission import JobSubmissionClient

send = JobSubmissionClient.submit_job


def recorded(client, *, entrypoint, **others):
    assert " heliograph.jobs.train" in entrypoint, entrypoint
    entrypoint = entrypoint.replace(" heliograph.jobs.train", " tests.recorded_job")
    return send(client, entrypoint=entrypoint, **others)


JobSubmissionClient.submit_job = recorded
from heliograph.jobs.command import run_alone
from heliograph.jobs.submit import submit

sys.argv[0] = "submit"
run_alone(submit)
"""
"""`heliograph submit`, whose job is the one that writes down what its workers see."""


@dataclass(frozen=True)
class Head:
    """A Ray that somebody has started by hand."""

    address: str
    job_server: str


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """`ray start --head --block`, ended by its own and its children's process numbers."""
    folder = tmp_path_factory.mktemp("head")
    port, dashboard = free_port(), free_port()
    inherited = {n: v for n, v in os.environ.items() if not n.startswith("MLFLOW_")}
    environment = inherited | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    with (folder / "log").open("wb") as log:
        ray = psutil.Popen(
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
                *("--port", str(port), "--dashboard-port", str(dashboard), "--num-cpus", "2"),
                *("--object-store-memory", "200000000", "--disable-usage-stats"),
            ],
            env=environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    said = (folder / "log").read_text

    def runs() -> bool:
        assert ray.poll() is None, said()
        return "Ray runtime started" in said()

    wait_until(runs, said, pause=0.2)
    family = [*ray.children(recursive=True), ray]
    yield Head(f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}")
    family += [each for each in ray.children(recursive=True) if each not in family]
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(family, timeout=DEADLINE)


def steps_of(folder: Path) -> Records:
    """Of the only job whose storage is in the folder."""
    (job,) = folder.glob("storage/jobs/*")
    return records(str(job))


def test_the_step_list_is_the_same_wherever_the_recipe_runs(head: Head, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(small_recipe(tmp_path).to_yaml().replace(f"{tmp_path}/storage", "storage"))
    text = recipe.read_bytes()
    (tmp_path / "submit_recorded.py").write_text(SUBMIT)
    token = {name: value for name, value in os.environ.items() if name.startswith("RAY_AUTH_")}
    ways = {
        "here": (["tests.recorded_job", str(recipe)], token),
        "joined": (["tests.recorded_job", str(recipe)], {"RAY_ADDRESS": head.address} | token),
        "submitted": (
            ["submit_recorded", "train", "recipe.yaml", "--address", head.job_server],
            {"PYTHONPATH": f"{tmp_path}:{ROOT}"} | token,
        ),
    }
    lists = {}
    for name, (words, environment) in ways.items():
        folder = tmp_path / name
        folder.mkdir()
        if name == "submitted":  # the current folder is sent
            (folder / "recipe.yaml").write_bytes(text)
            environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        # The storage is the recipe's: a folder of the one that the command is given in.
        command = Command([*words, f"storage={folder}/storage"], folder, environment)
        assert command.process.wait(LONG) == 0, command.said()
        lists[name] = pairs_of(steps_of(folder))
    assert sorted(lists["here"]) == list(range(1, 13))
    assert lists["joined"] == lists["here"]
    assert lists["submitted"] == lists["here"]
    assert recipe.read_bytes() == text
