"""A cluster whose head has no CPUs and whose hosts have disks of their own, as cluster.yaml has it.

Each verb is done on its nodes, or refused before it begins (issue 17, 3).
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from heliograph.pipeline.sources.embedded import grammar
from tests.cluster.desk import Desk, start_mlflow
from tests.cluster.hosts import Cluster, ray_cluster, what_is_missing
from tests.small_job import small_recipe
from tests.waiting import LONG

SENTENCES = 40
MISSING = what_is_missing()

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(8 * LONG),
    pytest.mark.skipif(MISSING is not None, reason=f"no hosts can be made here: {MISSING}"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with ray_cluster(tmp_path_factory.mktemp("lan"), workers=2, head_cpus=0) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def desk(cluster: Cluster) -> Desk:
    """With two models trained, on storage that all hosts share."""
    desk = Desk(cluster, start_mlflow(cluster.lan.add()))
    recipe = small_recipe(
        cluster.lan.folder,
        name="shared",
        registry={"promote": False},
        cluster={"workers": 2, "cpus_per_worker": 1},
        track={"attention_sentences": 1},
    )
    (desk.project / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    for seed in (1, 2):
        code, said = desk.heliograph("submit", "train", "recipe.yaml", f"seed={seed}")
        assert code == 0, said
    return desk


@pytest.fixture(scope="module")
def pairs(cluster: Cluster, desk: Desk) -> dict[str, str]:
    """The same file on the shared disk, within the folder that is sent, and on the head's own."""
    lines = [
        json.dumps({"source": source, "target": target})
        for source, target in grammar.pairs("test")[:SENTENCES]
    ]
    name = "pairs.jsonl"
    for folder in (cluster.lan.folder, desk.project, cluster.head.disk):
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {
        "shared": str(cluster.lan.folder / name),
        "sent": name,
        "the head's own": str(cluster.lan.disk / name),
    }


def result(said: str) -> Any:
    return json.loads(said.splitlines()[-1])


def test_a_model_is_scored_on_a_node(desk: Desk, pairs: dict[str, str]) -> None:
    """The data are read where the driver is, which alone need have them."""
    scores = []
    for place in ("sent", "the head's own"):
        words = ("evaluate", "models:/shared/1", "--data", pairs[place])
        code, said = desk.heliograph("submit", "--json", *words)
        assert code == 0, said
        assert "translating on a node of the cluster, with 2 CPUs" in desk.host.log.read_text()
        scores.append(result(said)["result"])
    assert scores[0]["sentences"] == SENTENCES
    assert scores[0] == scores[1]


def test_the_gate_judges_on_a_node(desk: Desk, pairs: dict[str, str]) -> None:
    """Both sides of a comparison on the same one."""
    code, said = desk.heliograph("submit", "pin", "shared", "other", "--data", pairs["sent"])
    assert code == 0, said
    rule = "{kind: not_worse, set: other, tolerance: 100}"
    speed = "{kind: speed, sentences: 4, of_champion: 0.000001}"
    for version in ("1", "2"):
        words = ("promote", "shared", "--version", version, "--rule", rule, "--rule", speed)
        code, said = desk.heliograph("submit", *words)
        assert code == 0, said
        assert said.count("translating on a node of the cluster, with 2 CPUs") == 1
    assert "version 2 becomes champion after version 1" in said


def test_a_data_set_is_translated_between_shared_places(
    desk: Desk, cluster: Cluster, pairs: dict[str, str]
) -> None:
    output = cluster.lan.folder / "translated"
    words = ("submit", "translate", "models:/shared/1")
    for place in ("shared", "sent"):
        to = f"{output}-{place}"
        code, said = desk.heliograph(*words, "--input", pairs[place], "--output", to)
        assert code == 0, said
        rows = pq.read_table(to).to_pylist()
        assert len(rows) == SENTENCES
        assert all(row["error"] is None for row in rows)

    own = pairs["the head's own"]
    code, said = desk.heliograph(*words, "--input", own, "--output", f"{output}-none")
    assert code == 2, said
    assert f"{own!r} is on this node's own disk, and not on host-" in said
    own = str(cluster.lan.disk / "translated")
    code, said = desk.heliograph(*words, "--input", pairs["shared"], "--output", own)
    assert code == 2, said
    assert f"output {own!r} is on this node's own disk, and host-" in said


@pytest.mark.parametrize("verb", ["prepare", "train"])
def test_a_storage_that_is_not_shared_is_refused(desk: Desk, cluster: Cluster, verb: str) -> None:
    own = str(cluster.lan.disk / "storage")
    code, said = desk.heliograph("submit", verb, "recipe.yaml", "name=own", f"storage={own}")
    assert code == 2, said
    assert f"storage {own!r} is on this node's own disk, and host-" in said
    assert "valid: a bucket" in said


def test_data_of_the_head_alone_are_refused(
    desk: Desk, cluster: Cluster, pairs: dict[str, str]
) -> None:
    """Before any of it is read."""
    own = pairs["the head's own"]
    words = (f"data.train={own}", f"data.validation={own}", "data.source=source")
    words += ("data.target=target",)
    code, said = desk.heliograph("submit", "prepare", "recipe.yaml", *words)
    assert code == 2, said
    assert f"{own!r} is on this node's own disk, and not on host-" in said


def test_runs_that_nodes_cannot_report_to_are_refused(
    desk: Desk, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file on the head, and a server that only the head reaches: nothing has begun."""
    database = f"sqlite:///{cluster.lan.disk}/mlflow.db"
    inside = start_mlflow(cluster.head, "127.0.0.1")
    for uri, words in {
        database: f"MLFLOW_TRACKING_URI {database!r} is a file on this node, and host-",
        inside: f"MLFLOW_TRACKING_URI {inside!r} answers here, and not on host-",
    }.items():
        monkeypatch.setitem(desk.environment, "MLFLOW_TRACKING_URI", uri)
        code, said = desk.heliograph("submit", "train", "recipe.yaml", "name=nowhere")
        assert code == 2, said
        assert words in said
        assert "valid: the address of a server that they all reach" in said
    assert not list(Path(cluster.lan.folder, "storage/jobs").glob("nowhere*/checkpoints/step-*"))
