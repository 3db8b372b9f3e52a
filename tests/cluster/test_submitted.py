"""`heliograph submit` from one host to a cluster of others, with tokens and a tracking server: a
node is cut off while it trains, and so is who watches."""

import re
import sys
import time
from collections.abc import Iterator

import psutil
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from heliograph.pipeline.runs.track import JOB_TAG
from tests.cluster.desk import SECRET, Desk, start_mlflow
from tests.cluster.hosts import Cluster, ray_cluster, what_is_missing
from tests.small_job import small_recipe
from tests.waiting import DEADLINE, LONG, wait_until

STEPS = 1200
SECONDS_WITHOUT_NETWORK = 45
"""Long enough that who follows a log gives its connection up."""
MISSING = what_is_missing()

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(8 * LONG),
    pytest.mark.skipif(MISSING is not None, reason=f"no hosts can be made here: {MISSING}"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with ray_cluster(tmp_path_factory.mktemp("lan"), workers=2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def tracking(cluster: Cluster) -> str:
    """An MLflow server on a host of its own; its address."""
    return start_mlflow(cluster.lan.add())


@pytest.fixture(scope="module")
def desk(cluster: Cluster, tracking: str) -> Desk:
    desk = Desk(cluster, tracking)
    recipe = small_recipe(
        cluster.lan.folder,
        name="submitted",
        train={"steps": STEPS, "checkpoint_steps": 20},
        validation={"every_steps": STEPS, "sentences": 10},
        registry={"promote": False},
        cluster={"workers": 2, "cpus_per_worker": 2, "max_failures": 3},
        track={"every_steps": 1, "attention_sentences": 1},
    )
    (desk.project / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    return desk


@pytest.fixture(scope="module")
def store(cluster: Cluster, tracking: str) -> MlflowClient:
    """The server's database, which this host reaches as a file."""
    (path,) = cluster.lan.folder.glob("host-*/mlflow.db")
    return MlflowClient(f"sqlite:///{path}")


def all_runs(store: MlflowClient) -> list[Run]:
    return list(store.search_runs([each.experiment_id for each in store.search_experiments()]))


def the_run(store: MlflowClient) -> Run:
    """The only run that was ever opened for the job; a decision about its model has one, too."""
    (run,) = [each for each in all_runs(store) if JOB_TAG in each.data.tags]
    return run


def steps(store: MlflowClient) -> list[int]:
    history = store.get_metric_history(the_run(store).info.run_id, "train/loss")
    return [metric.step for metric in history]


def test_training_is_followed_to_its_end(desk: Desk, store: MlflowClient) -> None:
    """Exit code 0, though a node and then who watches lose the network, and after an interrupt and
    a stop: the same command goes on in the same run."""
    words = ("submit", "train", "recipe.yaml")
    first = desk.start(*words)
    first.until(lambda: re.search(r"step \d+", first.said()))
    job = jobs_named_in(desk)[-1]
    assert re.fullmatch(r"submitted-[0-9a-f]{10}-1", job)
    assert desk.heliograph("submit", "train", "recipe.yaml", "cluster.max_failures=1")[0] == 2
    first.interrupt()
    assert first.process.wait(DEADLINE) == 130
    assert f"job {job} runs on" in desk.host.log.read_text()
    assert desk.heliograph("stop", job) == (0, f"job {job} has ended: STOPPED\n")
    assert desk.heliograph("logs", job, "--follow")[0] == 130
    taken = steps(store)
    assert taken == list(range(1, len(taken) + 1))
    assert the_run(store).info.status == "KILLED"

    second = desk.start(*words)
    second.until(lambda: len(steps(store)) > len(taken) + 20)
    again = desk.start(*words)  # the same command while it runs
    again.until(lambda: "runs already\n" in desk.host.log.read_text())
    cut = time.monotonic()
    lost = desk.cluster.workers[1]
    lost.cut_off()
    desk.host.cut_off()
    newest = len(steps(store))
    desk.cluster.add()
    log = desk.cluster.head.log
    wait_until(lambda: len(steps(store)) >= newest + 40, log.read_text, pause=0.2, seconds=LONG)
    print(f"from the cut to 40 new steps: {time.monotonic() - cut:.1f} s")
    time.sleep(max(0.0, cut + SECONDS_WITHOUT_NETWORK - time.monotonic()))
    desk.host.reconnect()
    assert second.process.wait(2 * LONG) == 0, second.said() + desk.host.log.read_text()
    assert again.process.wait(DEADLINE) == 0
    job = jobs_named_in(desk)[-1]
    assert job.endswith("-2")
    assert desk.heliograph("logs", job) == (0, second.said())
    assert again.said() == second.said()
    assert steps(store) == list(range(1, STEPS + 1))
    assert the_run(store).info.status == "FINISHED"


def jobs_named_in(desk: Desk) -> list[str]:
    return re.findall(r"job (\S+): train", desk.host.log.read_text())


def test_each_exit_code(desk: Desk, store: MlflowClient) -> None:
    """0 and 130 are those above."""
    rule = "{kind: size, megabytes: 0.01}"
    assert desk.heliograph("submit", "promote", "submitted", "--rule", rule)[0] == 3
    assert desk.heliograph("submit", "train", "recipe.yaml", "data.train=/nowhere.jsonl")[0] == 2
    # Nobody is at that address, so the test delivery fails; its secret went with the job.
    code, said = desk.heliograph("submit", "notify", "http://10.77.0.1:9/champions")
    assert (code, "a test delivery failed" in said) == (1, True)


def test_a_token_is_asked_for(desk: Desk) -> None:
    right = dict(desk.environment)
    desk.environment["RAY_AUTH_TOKEN"] = "0" * 64
    assert desk.heliograph("status")[0] == 2
    desk.environment |= {"RAY_AUTH_MODE": "disabled"}
    assert desk.heliograph("status")[0] == 2
    desk.environment |= right
    assert desk.host.log.read_text().count("wants its own token") == 2
    assert desk.heliograph("status")[0] == 0


def test_the_secret_is_nowhere(cluster: Cluster, store: MlflowClient) -> None:
    """Not in the files of Ray and of the tracking server, nor in what anyone said, nor in the
    command lines of running processes."""
    told = [
        str(path)
        for path in cluster.lan.folder.rglob("*")
        if path.is_file() and SECRET.encode() in path.read_bytes()
    ]
    assert told == []
    commands = [" ".join(each.info["cmdline"] or []) for each in psutil.process_iter(["cmdline"])]
    assert not any(SECRET in command for command in commands)
    assert len(all_runs(store)) > 1, "the job's, and the decision's"
    for run in all_runs(store):
        assert SECRET not in str(run.data.params) + str(run.data.tags)


def test_the_job_server_listens_where_it_was_told_to(cluster: Cluster) -> None:
    """All else of Ray listens on all interfaces, and asks for the token, too."""
    assert cluster.head.listens_at(8265) == {cluster.head.address}
    stranger = cluster.environment | {"RAY_AUTH_TOKEN": "0" * 64}
    words = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address"]
    words += [f"{cluster.head.address}:6379"]
    assert cluster.lan.add().run(words, cluster.environment).wait(60) == 0
    assert cluster.lan.add().run(words, stranger).wait(60) != 0
