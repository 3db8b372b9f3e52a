"""What is wrong with a cluster is said in words: each fault is caused for real where it can be."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from heliograph.pipeline.doctor.checks import (
    GIB,
    Check,
    check_clocks,
    check_disks,
    check_resources,
    check_server_version,
    check_shared_memory,
    check_storage,
    check_token,
    check_tracking_from_nodes,
    check_versions,
)
from heliograph.pipeline.doctor.doctor import check_cluster, examine
from heliograph.pipeline.doctor.node import NodeReport, Question, Room, look_around
from heliograph.pipeline.doctor.server import EXPERIMENT
from heliograph.pipeline.request.placement import Nodes
from heliograph.pipeline.request.recipe import Cluster
from tests.pipeline.small_disk import in_small_disk
from tests.tracking_server import Door

WELL = NodeReport(
    name="one",
    versions={"python": "3.11.2", "torch": "2.13.0"},
    cpus=8,
    gpus=2,
    shared_memory=Room(8 * GIB, 8 * GIB),
    temporary=Room(100 * GIB, 50 * GIB),
    token_mode="token",
)


def by_name(checks: list[Check]) -> dict[str, Check]:
    assert len({check.name for check in checks}) == len(checks)
    return {check.name: check for check in checks}


@pytest.mark.usefixtures("ray_cluster")
def test_a_cluster_that_is_well(
    door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", door.url)
    storage = tmp_path / "storage"
    checks = by_name(examine(Cluster(workers=2), str(storage), door.url))
    healthy = set(checks) - {"disks", "resources", "shared memory"}  # this machine's own affair
    assert {name: checks[name].found for name in healthy if checks[name].status != "ok"} == {}
    assert set(checks) == {
        "cluster", "versions", "clocks", "resources", "placement", "shared memory", "disks",
        "token", "storage", "tracking server", "artifact store", "webhook key",
        "tracking from nodes",
    }  # fmt: skip
    assert list(storage.iterdir()) == []
    client = MlflowClient(door.url)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    assert list(client.search_runs([experiment.experiment_id])) == []


@pytest.mark.usefixtures("ray_cluster")
def test_what_would_fail_is_found(door: Door, tmp_path: Path) -> None:
    """No server; a storage that cannot be; more workers than there is room for."""
    (tmp_path / "file").write_text("not a folder")
    door.mode = "refuses"
    checks = by_name(examine(Cluster(workers=99), f"{tmp_path}/file/storage", door.url))
    failed = {name for name, check in checks.items() if check.status == "fail"}
    assert failed >= {"tracking server", "storage", "placement"}
    assert failed <= {"tracking server", "storage", "placement", "disks"}
    assert door.url in checks["tracking server"].found
    assert "99 workers" in checks["placement"].found
    assert "MLFLOW_TRACKING_URI" in checks["tracking server"].way_on
    assert all(checks[name].way_on for name in failed)


@pytest.mark.usefixtures("ray_cluster")
def test_an_artifact_store_that_cannot_be_written(store: object, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    (tmp_path / "file").write_text("not a folder")
    MlflowClient(uri).create_experiment(EXPERIMENT, artifact_location=f"{tmp_path}/file/artifacts")
    checks = by_name(examine(None, None, uri))
    assert checks["artifact store"].status == "fail"
    assert checks["tracking from nodes"].status == "fail"
    assert checks["tracking server"].status == "ok"


def test_no_cluster_at_the_address() -> None:
    check = check_cluster("127.0.0.1:1")
    assert check.status == "fail"
    assert "nothing answers at 127.0.0.1:1" in check.found


def test_a_full_and_a_read_only_disk(tmp_path: Path) -> None:
    result = in_small_disk(tmp_path, __name__)
    assert "No space left" in result["full"]
    assert "Read-only file system" in result["read-only"]
    assert result["well"] is None
    assert result["disks"][0] == "fail"
    assert "0.0 GiB" in result["disks"][1]


def main(folder: Path) -> dict[str, object]:
    """Where `folder` is a disk of 8 MB."""

    def storage_error(node: str) -> str | None:
        return look_around(Question(str(folder / "storage")), node, str(folder)).storage_error

    result: dict[str, object] = {"well": storage_error("one")}
    report = look_around(Question(str(folder / "storage")), "node", str(folder))
    check = check_disks([report])
    result["disks"] = check.status, check.found
    with (folder / "other data").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"1" * 4096)
        except OSError:
            pass
    result["full"] = storage_error("two")
    (folder / "other data").unlink()
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    result["read-only"] = storage_error("three")
    return result


def test_nodes_of_different_versions() -> None:
    other = replace(WELL, name="two", versions=WELL.versions | {"torch": "2.12.1"})
    assert check_versions([WELL, replace(WELL, name="two")]).status == "ok"
    check = check_versions([WELL, other])
    assert check.status == "fail"
    assert check.found == "torch: 2.13.0 on one; 2.12.1 on two"


@pytest.mark.parametrize(("skew", "status"), [(0.4, "ok"), (-5.0, "warn"), (90.0, "fail")])
def test_clocks(skew: float, status: str) -> None:
    check = check_clocks({"one": 0.01, "two": skew})
    assert check.status == status
    assert ("two is" in check.found) == (status != "ok")


def test_a_gpu_that_ray_does_not_count() -> None:
    assert check_resources([WELL], {"one": {"CPU": 8, "GPU": 2}}, [Nodes(1, 8, 2)]).status == "ok"
    check = check_resources([WELL], {"one": {"CPU": 8}}, [Nodes(1, 8)])
    assert check.status == "warn"
    assert "one has 2 GPUs, Ray counts 0" in check.found
    check = check_resources([WELL], {"one": {"CPU": 16, "GPU": 2}}, [Nodes(1, 16, 2)])
    assert "Ray counts 16 CPUs on one, which has 8" in check.found


def test_a_container_s_shared_memory() -> None:
    little = replace(WELL, name="two", shared_memory=Room(64 * 2**20, 64 * 2**20))
    check = check_shared_memory([WELL, little])
    assert check.status == "warn"
    assert "0.1 GiB on two" in check.found
    assert "--shm-size" in check.way_on


def test_a_disk_that_ray_takes_for_full() -> None:
    full = replace(WELL, name="two", storage_room=Room(1000 * GIB, 30 * GIB))
    check = check_disks([WELL, full])
    assert check.status == "fail"
    assert "storage on two" in check.found
    assert check_disks([WELL]).status == "ok"


def test_a_cluster_without_a_token() -> None:
    check = check_token([WELL, replace(WELL, name="two", token_mode="disabled")])
    assert check.status == "warn"
    assert "two" in check.found
    assert "one" not in check.found


def test_a_folder_that_is_each_node_s_own(tmp_path: Path) -> None:
    reports = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        reports.append(look_around(Question(storage=str(tmp_path / name)), name))
    seen = {path.name for path in (tmp_path / "one").iterdir()}
    check = check_storage(seen, reports)
    assert check.status == "fail"
    assert "what two wrote is not seen here" in check.found


def test_a_server_that_nodes_do_not_reach() -> None:
    report = replace(WELL, name="two", tracking_error="Connection refused")
    check = check_tracking_from_nodes("http://mlflow:5000", [WELL, report])
    assert check.status == "fail"
    assert "two: Connection refused" in check.found


def test_a_server_of_another_major_version() -> None:
    assert check_server_version("http://mlflow", "3.9.0", "3.17.2").status == "ok"
    assert check_server_version("http://mlflow", "2.22.0", "3.17.2").status == "warn"


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
