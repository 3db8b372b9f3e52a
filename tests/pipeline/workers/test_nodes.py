"""Nodes are lost, join, and are announced to go, while a job trains on them."""

import pickle
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray._raylet import GcsClient
from ray.core.generated.autoscaler_pb2 import DrainNodeReason

from heliograph.pipeline.request.placement import Placement
from heliograph.pipeline.request.recipe import Cluster
from heliograph.pipeline.runs.progress import open_board
from heliograph.pipeline.tracking.events import read_events
from heliograph.pipeline.tracking.sync import sync_job
from heliograph.pipeline.training.plan import TrainingPlan
from heliograph.pipeline.workers.train import train
from tests.held_job import hold
from tests.ray_nodes import RayNodes, is_data_task, is_worker
from tests.recorded_job import Records, folder_of, pairs_of, records
from tests.small_job import ROOT, Command
from tests.small_plan import Undisturbed, assert_same, job, losses
from tests.tracking_server import Door
from tests.waiting import DEADLINE, wait_until

pytestmark = pytest.mark.timeout(1200)

Nodes = dict[int, str]
"""By rank the id of the node that it is on."""


class NodesById(RayNodes):
    """Nodes by the id that their processes know."""

    def ids(self) -> list[str]:
        """Of all but the head."""
        return [node.node_id for node in self._cluster.worker_nodes]

    def lose(self, node_id: str) -> None:
        """SIGKILL to all processes of the node, at once."""
        (node,) = (node for node in self._cluster.worker_nodes if node.node_id == node_id)
        parents = [info.process.pid for infos in node.all_processes.values() for info in infos]
        for parent in map(psutil.Process, parents):
            for process in [parent, *parent.children(recursive=True)]:
                process.kill()
        self._cluster.remove_node(node, allow_graceful=False)

    def announce_end(self, node_id: str, seconds: float) -> None:
        """As an autoscaler does it when the cloud is going to take the node away."""
        accepted, why_not = GcsClient(address=self._cluster.address).drain_node(
            node_id,
            DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"),
            "the cloud takes it back",
            int((time.time() + seconds) * 1000),
        )
        assert accepted, why_not


@pytest.fixture(scope="module")
def nodes() -> Iterator[NodesById]:
    """A head for the data, and two nodes of which each has room for one worker."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))  # for the workers, which import the tests' own
        with NodesById(cpus_per_node=[1, 2, 2]) as nodes:
            yield nodes


@pytest.fixture
def calm(small_training: TrainingPlan) -> TrainingPlan:
    """Without dropout, whose draws are each rank's own: so the losses do not depend on how many."""
    plan = small_training
    nothing = {"dropout": 0.0, "attention_dropout": 0.0, "embedding_dropout": 0.0}
    # At the paper's rate, 0.05 for so narrow a model, training is chaotic: it magnifies rounding.
    slow = plan.train.model_copy(update={"learning_rate": 1e-3})
    return replace(plan, model=plan.model.model_copy(update=nothing), train=slow)


def processes(is_one: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
    """Those of this kind on all nodes: this process has started them."""
    return [each for each in psutil.Process().children(recursive=True) if is_one(each)]


class Job:
    """Training on the nodes, in a process of its own."""

    def __init__(self, nodes: NodesById, plan: TrainingPlan, name: str, **cluster: Any) -> None:
        self.plan, self.nodes = job(plan, name), nodes
        self.hold(0)
        folder = Path(self.plan.folder)
        settings = Cluster(workers=2, **cluster)
        (folder / "plan").write_bytes(pickle.dumps((self.plan, settings)))
        self.start()

    def start(self) -> None:
        """Also again, after its end."""
        folder = Path(self.plan.folder)
        environment = self.nodes.environment() | {
            "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "0.5",
        }
        self.command = Command(["tests.held_job", str(folder / "plan")], folder, environment)

    def hold(self, step: float) -> None:
        hold(self.plan.folder, step)

    def records(self) -> Records:
        return records(self.plan.folder)

    def workers(self) -> int:
        """How many of them took the newest step."""
        record = self.records()
        return record[max(record)][-1]["world_size"] if record else 0

    def train_to(self, step: int) -> None:
        """There the workers wait."""
        self.hold(step)
        self.until(lambda: self.reached(step, workers=2))

    def kill(self, is_one: Callable[[psutil.Process], bool], before: int) -> None:
        """SIGKILL to a process of this kind, as soon as there is one, and before the step."""
        self.hold(before)

        def killed() -> bool:
            for process in processes(is_one):
                process.kill()
                return True
            assert not self.reached(before, workers=2), "there never was one"
            return False

        self.until(killed, pause=0.0)

    def reached(self, step: int, workers: int) -> bool:
        """Whether so many workers, the newest ones, have taken the step."""
        lines = self.records().get(step, [])[-workers:]
        return len(lines) == workers and {line["world_size"] for line in lines} == {workers}

    def where(self, workers: int = 2) -> Nodes:
        """Of the newest workers."""
        newest = sorted(folder_of(self.plan.folder).glob("*.node"))[-workers:]
        return {int(path.stem.partition("-")[2]): path.read_text() for path in newest}

    def until(self, condition: Callable[[], Any], pause: float = 0.3) -> Any:
        def holds() -> Any:
            assert self.command.process.poll() is None, self.command.said()
            return condition()

        return wait_until(holds, self.command.said, pause)

    def end(self) -> None:
        self.hold(float("inf"))
        assert self.command.process.wait(2 * DEADLINE) == 0, self.command.said()

    def said_of(self, *kinds: str) -> list[str]:
        """The messages of such events, in their order."""
        return [event.message for event in read_events(self.plan.events) if event.kind in kinds]

    def events(self) -> list[str]:
        """Their kinds."""
        return [event.kind for event in read_events(self.plan.events)]


@pytest.fixture
def start(nodes: NodesById) -> Iterator[Callable[..., Job]]:
    jobs: list[Job] = []

    def start(plan: TrainingPlan, name: str, checkpoint_steps: int = 4, **cluster: Any) -> Job:
        train = plan.train.model_copy(update={"checkpoint_steps": checkpoint_steps})
        jobs.append(Job(nodes, replace(plan, train=train), name, **cluster))
        return jobs[-1]

    yield start
    for each in jobs:
        if each.command.process.poll() is None:
            each.command.process.kill()


def test_whatever_befalls_it_nothing_differs_by_a_bit(
    start: Callable[..., Job], undisturbed: Undisturbed, nodes: NodesById, door: Door
) -> None:
    """The tracking server goes away, a data task, a worker and a node are lost, the server is back,
    and the driver is lost. In one job, since each start of the workers takes half a minute.

    A lost node is waited for, and another one takes its place; after the driver, the same command
    goes on.
    """
    disturbed = start(replace(undisturbed.plan, tracking_uri=door.url), "befallen", max_failures=5)
    disturbed.train_to(3)
    door.mode = "refuses"
    disturbed.kill(is_data_task, before=61)
    disturbed.train_to(61)
    disturbed.until(lambda: disturbed.plan.checkpoints.steps()[-1] == 60)  # beside training
    disturbed.kill(is_worker, before=81)
    disturbed.train_to(81)
    disturbed.until(lambda: disturbed.plan.checkpoints.steps()[-1] == 80)
    nodes.lose(disturbed.where()[0])
    nodes.add(2)
    disturbed.train_to(101)
    door.mode = "open"
    disturbed.until(lambda: disturbed.plan.checkpoints.steps()[-1] == 100)
    workers = processes(is_worker)
    disturbed.command.kill()
    _, alive = psutil.wait_procs(workers, timeout=DEADLINE)
    assert not alive
    disturbed.start()
    disturbed.end()
    sync_job(door.url, disturbed.plan.folder)  # as the job does at its end
    assert_same(disturbed.plan, undisturbed)
    # Between these a start may have failed once more, which is told and counted as well.
    told = disturbed.said_of("failure", "workers")
    as_it_was = (
        r"\b1 of at most 5 times .*newest checkpoint is of step 60\n(.*\n)*"
        r".*of at most 5 times .*newest checkpoint is of step 80\n(.*\n)*"
        r".*on 2 of 2 workers, no longer on [\d.]+;"
    )
    assert re.search(as_it_was, "\n".join(told)), told


@pytest.mark.faults
def test_an_elastic_job_goes_on_with_fewer_workers_and_grows_back(
    start: Callable[..., Job], calm: TrainingPlan, nodes: NodesById
) -> None:
    undisturbed = start(calm, "calm", max_failures=0)
    undisturbed.end()
    assert len(set(undisturbed.where().values())) == 2
    disturbed = start(calm, "elastic", min_workers=1)
    disturbed.hold(21)
    disturbed.until(lambda: disturbed.reached(21, workers=2))
    nodes.lose(disturbed.where()[0])
    disturbed.hold(61)
    disturbed.until(lambda: disturbed.reached(61, workers=1))
    nodes.add(2)
    disturbed.until(lambda: disturbed.reached(61, workers=2))
    disturbed.end()
    assert pairs_of(disturbed.records()) == pairs_of(undisturbed.records())
    assert losses(disturbed.plan) == pytest.approx(losses(undisturbed.plan), rel=1e-5)  # seen: 1e-7
    messages = " ".join(disturbed.said_of("workers"))
    assert re.search(r"on 1 of 2 workers, no longer on .*on 2 of 2 workers;", messages)


@pytest.mark.faults
def test_a_node_that_is_announced_to_go_leaves_a_checkpoint_behind(
    start: Callable[..., Job], undisturbed: Undisturbed, nodes: NodesById
) -> None:
    disturbed = start(undisturbed.plan, "announced", checkpoint_steps=1_000, max_failures=0)
    disturbed.hold(31)
    disturbed.until(lambda: disturbed.reached(31, workers=2))
    assert disturbed.plan.checkpoints.steps() == []
    going, staying = disturbed.where()[1], disturbed.where()[0]
    nodes.announce_end(going, seconds=8)
    nodes.add(2)
    disturbed.hold(60)
    disturbed.until(disturbed.plan.checkpoints.steps)
    (step,) = disturbed.plan.checkpoints.steps()
    assert 32 <= step <= 60
    disturbed.until(lambda: going not in disturbed.where().values())
    assert staying in disturbed.where().values()
    disturbed.end()
    assert_same(disturbed.plan, undisturbed)
    assert disturbed.events()[0] == "preemption"
    assert "failure" not in disturbed.events()  # nor does it count as one


@pytest.mark.faults
def test_the_node_that_made_the_batches_is_lost_and_the_workers_find_room_for_them(
    undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with NodesById(cpus_per_node=[0, 2, 1]) as nodes:  # the two workers take the first node's CPUs
        disturbed = Job(nodes, undisturbed.plan, "starved")
        disturbed.hold(5)
        disturbed.until(lambda: disturbed.reached(5, workers=2))
        (for_data,) = set(nodes.ids()) - set(disturbed.where().values())
        nodes.lose(for_data)
        disturbed.end()
    assert_same(disturbed.plan, undisturbed)
    assert "no CPU is left for the data" in " ".join(disturbed.said_of("workers"))


@pytest.mark.faults
def test_batches_are_made_though_the_workers_took_every_cpu(small_training: TrainingPlan) -> None:
    """As they may after a node was lost: of this cluster's two CPUs they leave none."""
    settings = small_training.train.model_copy(update={"steps": 30})
    crowded = replace(job(small_training, "crowded"), train=settings)
    every_cpu = Placement(workers=2, cpus_per_worker=1, use_gpu=False)
    assert train(crowded, every_cpu, Cluster(workers=2), open_board()).step == 30
