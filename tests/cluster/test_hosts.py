"""Hosts are killed, cut off from the network and back while `heliograph train` runs on them."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from safetensors.torch import load_file

from heliograph.pipeline.tracking.events import read_events
from tests.cluster.hosts import Cluster, Host, ray_cluster, what_is_missing
from tests.recorded_job import Records, digest, folder_of, pairs_of, records
from tests.small_job import small_recipe
from tests.waiting import LONG, wait_until

STEPS = 160
MISSING = what_is_missing()
pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(4 * LONG),
    pytest.mark.skipif(MISSING is not None, reason=f"no hosts can be made here: {MISSING}"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with ray_cluster(tmp_path_factory.mktemp("lan"), workers=2) as cluster:
        yield cluster


class Job:
    """`heliograph train` on the head, with a file of records for each worker."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.name, self.cluster = name, cluster
        self.folder = cluster.lan.folder / name
        self.folder.mkdir()
        self.store = f"sqlite:///{cluster.lan.folder}/mlflow.db"
        recipe = self.folder / "recipe.yaml"
        recipe.write_text(
            small_recipe(
                self.folder,
                name=name,
                train={"steps": STEPS, "checkpoint_steps": 5},
                validation={"every_steps": 80, "sentences": 10},
                augment={"bpe_dropout": 0.1},
                cluster={"workers": 2, "cpus_per_worker": 2, "max_failures": 3},
                track={"every_steps": 1, "attention_sentences": 1},
            ).to_yaml(),
            encoding="utf-8",
        )
        words = [sys.executable, "-m", "tests.recorded_job", str(recipe)]
        environment = {
            "RAY_ADDRESS": f"{cluster.head.address}:6379",
            "MLFLOW_TRACKING_URI": self.store,
        }
        self.process = cluster.head.run(words, cluster.environment | environment)

    @property
    def storage(self) -> str | None:
        found = [str(path) for path in self.folder.glob("storage/jobs/*")]
        return found[0] if found else None

    def records(self) -> Records:
        return records(self.storage) if self.storage else {}

    def host_of(self, rank: int) -> Host:
        """Where the newest worker of this rank is; processes have the same ids on all hosts."""
        newest = [
            int(path.stem.partition("-")[2])
            for path in sorted(folder_of(str(self.storage)).glob("*.jsonl"))
            if f'"rank": {rank},' in path.read_text()
        ][-1]
        (host,) = (each for each in self.cluster.workers if newest in each.processes())
        return host

    def until(self, condition: Callable[[], Any]) -> None:
        def holds() -> Any:
            assert self.process.poll() is None, self.cluster.head.log.read_text()
            return condition()

        wait_until(holds, self.cluster.head.log.read_text, pause=0.05, seconds=LONG)

    def end(self) -> None:
        assert self.process.wait(LONG) == 0, self.cluster.head.log.read_text()

    def seconds_to_a_new_step(self, meanwhile: Callable[[], Any]) -> float:
        started, newest = time.monotonic(), max(self.records())
        meanwhile()
        self.until(lambda: max(self.records()) > newest + 1)  # one may have been under way
        return time.monotonic() - started

    def failures(self) -> int:
        events = read_events(f"{self.storage}/events")
        return sum(event.kind == "failure" for event in events)

    def weights(self) -> str:
        newest = max(Path(str(self.storage), "checkpoints").iterdir())
        return digest(load_file(newest / "model.safetensors"))

    def losses(self) -> dict[int, float]:
        """Of its only run, each step of which is there once."""
        client = MlflowClient(self.store)
        experiment = client.get_experiment_by_name("heliograph")
        assert experiment is not None
        (run,) = client.search_runs(
            [experiment.experiment_id], f"attributes.run_name = '{self.name}'"
        )
        assert run.info.status == "FINISHED"
        history = client.get_metric_history(run.info.run_id, "train/loss")
        assert [metric.step for metric in history] == list(range(1, STEPS + 1))
        return {metric.step: metric.value for metric in history}


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster) -> Job:
    job = Job(cluster, "undisturbed")
    job.end()
    return job


def test_a_host_is_killed_and_another_one_takes_its_place(
    cluster: Cluster, undisturbed: Job
) -> None:
    job = Job(cluster, "killed")
    job.until(lambda: 30 in job.records())
    job.host_of(rank=1).kill()
    seconds = job.seconds_to_a_new_step(cluster.add)
    print(f"from the kill to the next new step: {seconds:.1f} s")
    job.end()
    assert_undisturbed(job, undisturbed)
    assert job.failures() == 1


def test_a_host_is_cut_off_and_later_back(cluster: Cluster, undisturbed: Job) -> None:
    """That of rank 0, which lives on, and reaches storage and tracking."""
    job = Job(cluster, "cut-off")
    job.until(lambda: 30 in job.records())
    lost = job.host_of(rank=0)
    lost.cut_off()
    seconds = job.seconds_to_a_new_step(cluster.add)
    print(f"from the cut to the next new step: {seconds:.1f} s")
    assert lost.processes()
    lost.reconnect()
    job.end()
    assert_undisturbed(job, undisturbed)
    assert job.failures() == 1


def test_a_host_that_is_back_soon_was_not_missed(cluster: Cluster, undisturbed: Job) -> None:
    job = Job(cluster, "interrupted")
    job.until(lambda: 30 in job.records())
    host = job.host_of(rank=1)
    host.cut_off()
    time.sleep(4)
    host.reconnect()
    job.end()
    assert_undisturbed(job, undisturbed)
    assert job.failures() == 0


def assert_undisturbed(job: Job, undisturbed: Job) -> None:
    taken, expected = pairs_of(job.records()), pairs_of(undisturbed.records())
    assert taken == {step: expected[step] for step in taken}
    assert len(taken) >= STEPS - 1  # a killed worker may not have told of its last one
    assert job.losses() == undisturbed.losses()
    assert job.weights() == undisturbed.weights()
