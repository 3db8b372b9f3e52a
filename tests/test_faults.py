"""A job of which one process is killed, at any moment: it ends as the undisturbed one did.

The job is the whole command, from raw data to registered model, on a cluster of a head and two
nodes. After a lost driver the same command is given again; for a lost node another one joins.
"""

import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from safetensors.torch import load_file

from tests.ray_nodes import RayNodes, is_data_task, is_worker
from tests.recorded_job import Records, digest, pairs_of, records
from tests.small_job import ROOT, Command, small_recipe

RUNS = 20
STEPS = 120
DEADLINE = 600.0
"""Seconds for a whole job and what befalls it."""

Kind = Literal["worker", "node", "driver", "data task"]
KINDS: tuple[Kind, ...] = ("worker", "node", "driver", "data task")
PASSING: tuple[Kind, ...] = ("worker", "data task")

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def nodes() -> Iterator[RayNodes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))  # the nodes' processes need the recording workers
        patch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "1.0")
        with RayNodes(cpus_per_node=[0, 2, 2]) as nodes:
            yield nodes


@dataclass
class Job:
    """A job in a folder of its own, in a tracking store that all share."""

    name: str
    folder: Path
    store: str
    nodes: RayNodes

    def start(self) -> Command:
        self.folder.mkdir(exist_ok=True)
        recipe = self.folder / "recipe.yaml"
        recipe.write_text(
            small_recipe(
                self.folder,
                name=self.name,
                train={"steps": STEPS, "checkpoint_steps": 10},
                validation={"every_steps": 40, "sentences": 10},
                augment={"bpe_dropout": 0.1},
                cluster={"workers": 2, "max_failures": 3},
                track={"every_steps": 1, "attention_sentences": 1},
            ).to_yaml(),
            encoding="utf-8",
        )
        environment = self.nodes.environment() | {"MLFLOW_TRACKING_URI": self.store}
        environment |= {"MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "1.0"}
        return Command(["tests.recorded_job", str(recipe)], self.folder, environment)

    def run(self) -> Run:
        """The one run that there is of it."""
        client = MlflowClient(self.store)
        experiments = [each.experiment_id for each in client.search_experiments()]
        query = f"attributes.run_name = '{self.name}'"
        (run,) = client.search_runs(experiments, query, max_results=10)
        return run

    @property
    def storage(self) -> str:
        (folder,) = (self.folder / "storage" / "jobs").iterdir()
        return str(folder)


@dataclass(frozen=True)
class Result:
    """What is left of a finished job."""

    records: Records
    losses: dict[int, float]
    weights: str
    seconds: float


def result_of(job: Job, seconds: float) -> Result:
    """Its one run holds each step once, and its model is registered once."""
    client, run = MlflowClient(job.store), job.run()
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [metric.step for metric in history] == list(range(1, STEPS + 1))
    assert len(client.search_model_versions(f"name='{job.name}'")) == 1
    newest = max(Path(job.storage, "checkpoints").iterdir())
    return Result(
        records(job.storage),
        {metric.step: metric.value for metric in history},
        digest(load_file(newest / "model.safetensors")),
        seconds,
    )


@pytest.fixture(scope="module")
def make_job(nodes: RayNodes, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Job]:
    folder = tmp_path_factory.mktemp("faults")
    return lambda name: Job(name, folder / name, f"sqlite:///{folder}/mlflow.db", nodes)


@pytest.fixture(scope="module")
def undisturbed(make_job: Callable[[str], Job]) -> Result:
    job, started = make_job("undisturbed"), time.monotonic()
    command = job.start()
    assert command.process.wait(DEADLINE) == 0, command.said()
    for node in ("head", "node-1", "node-2"):
        assert f"system/{node}/cpu_utilization_percentage" in job.run().data.metrics
    return result_of(job, time.monotonic() - started)


def test_the_undisturbed_run_takes_each_pair_once_an_epoch(undisturbed: Result) -> None:
    epochs: dict[int, list[int]] = {}
    for step, micro_batches in pairs_of(undisturbed.records).items():
        lines = undisturbed.records[step]
        assert len({line["weights"] for line in lines}) == 1
        taken = epochs.setdefault(lines[0]["epoch"], [])
        taken += [pair for micro_batch in micro_batches for pair in micro_batch]
    assert len(epochs) > 2
    for epoch in sorted(epochs)[:-1]:
        assert sorted(epochs[epoch]) == list(range(600))


@pytest.mark.parametrize("number", range(RUNS))
def test_a_process_is_killed_and_the_result_is_the_same(
    number: int, undisturbed: Result, make_job: Callable[[str], Job]
) -> None:
    draw = random.Random(number)
    kind = KINDS[number % 4]
    # In the job's second half there soon is no data task left to be killed, and then no worker.
    moment = draw.uniform(0, undisturbed.seconds * (0.5 if kind in PASSING else 1.0))
    started = time.monotonic()
    for attempt in range(4):
        job = make_job(f"fault-{number}-{attempt}")
        if disturbed(job, kind, moment / 2**attempt, draw):
            break  # else all of the kind had ended at that moment: an earlier one
    else:
        pytest.fail(f"there never was a {kind} to be killed")
    result = result_of(job, time.monotonic() - started)
    assert pairs_of(result.records) == pairs_of(undisturbed.records)
    for step, lines in result.records.items():
        assert {line["weights"] for line in lines} == {undisturbed.records[step][0]["weights"]}
    assert result.losses == undisturbed.losses
    assert result.weights == undisturbed.weights


def disturbed(job: Job, kind: Kind, moment: float, draw: random.Random) -> bool:
    """Run the job to its end, with a kill after so many seconds; whether there was one to kill."""
    command, started = job.start(), time.monotonic()
    killed = False
    try:
        while command.process.poll() is None:
            assert time.monotonic() - started < DEADLINE, command.said()
            if not killed and time.monotonic() - started >= moment:
                killed = kill(kind, command, job.nodes, draw)
                if killed:
                    print(f"{kind} killed after {time.monotonic() - started:.1f} s")
                if killed and kind == "driver":
                    command.process.wait()
                    command = job.start()
            time.sleep(0.01)
    finally:
        command.kill()
    assert command.process.returncode == 0, command.said()
    return killed


def kill(kind: Kind, command: Command, nodes: RayNodes, draw: random.Random) -> bool:
    """SIGKILL to one of the kind, if there is one now."""
    if kind == "driver":
        command.process.kill()
    elif kind == "node":
        nodes.replace_one(draw)
    else:
        is_one = is_data_task if kind == "data task" else is_worker
        victims = [process for process in nodes.processes() if is_one(process)]
        if not victims:
            return False
        draw.choice(victims).send_signal(signal.SIGKILL)
    return True
