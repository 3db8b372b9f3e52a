"""cluster.yaml is what `ray up` accepts, and keeps training off the head."""

import copy
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from pipeline.recipe_file import load_recipe

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    assert isinstance(config, dict)
    return config


@pytest.fixture(scope="module")
def prepared(written: dict[str, Any]) -> dict[str, Any]:
    """As Ray sees it: with its defaults filled in, and validated."""
    config: dict[str, Any] = prepare_config(copy.deepcopy(written))
    validate_config(config)
    return config


def test_ray_refuses_a_broken_copy(written: dict[str, Any]) -> None:
    """Ray's validation is not a formality: it sees a wrong type."""
    broken = written | {"max_workers": "many"}
    with pytest.raises(Exception, match="many"):
        validate_config(prepare_config(broken))


def test_the_head_does_no_training_work(prepared: dict[str, Any]) -> None:
    head = prepared["available_node_types"][prepared["head_node_type"]]
    assert head["resources"] == {"CPU": 0}
    assert head["max_workers"] == 0
    assert any("ray start --head" in line for line in prepared["head_start_ray_commands"])


def test_workers_come_and_go(prepared: dict[str, Any]) -> None:
    workers = [
        node
        for name, node in prepared["available_node_types"].items()
        if name != prepared["head_node_type"]
    ]
    assert all(node["min_workers"] == 0 for node in workers), "an idle cluster is the head alone"
    assert prepared["max_workers"] == sum(node["max_workers"] for node in workers)
    assert prepared["idle_timeout_minutes"] > 0
    assert any(node["resources"].get("GPU") for node in workers), "for training"
    assert any(not node["resources"].get("GPU") for node in workers), "for data"


def test_the_cluster_recipe_fits(prepared: dict[str, Any]) -> None:
    """recipes/base.yaml is written for this cluster: it has the GPUs that the recipe asks for."""
    gpus = sum(
        node["max_workers"] * node["resources"].get("GPU", 0)
        for node in prepared["available_node_types"].values()
    )
    assert load_recipe(ROOT / "recipes/base.yaml").cluster.workers <= gpus


def test_every_node_installs_the_tested_versions(prepared: dict[str, Any]) -> None:
    for commands in (prepared["head_setup_commands"], prepared["worker_setup_commands"]):
        installs = [shlex.split(line) for line in commands if "--editable" in line]
        assert len(installs) == 1
        constraint = installs[0][installs[0].index("--constraint") + 1]
        [mounted] = prepared["file_mounts"]
        assert constraint == f"{mounted}/constraints.txt"
    assert (ROOT / "constraints.txt").is_file()


def test_the_images_have_the_ray_of_the_constraints(prepared: dict[str, Any]) -> None:
    """Nodes and drivers of different Ray versions refuse each other."""
    pinned = [
        line.removeprefix("ray==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line.startswith("ray==")
    ]
    for image in ("head_image", "worker_image"):
        assert prepared["docker"][image].split(":")[1].split("-")[0] == pinned[0]


def test_authentication_is_set_alike_on_all_nodes(prepared: dict[str, Any]) -> None:
    """A head that demands tokens from workers without one makes a cluster that hangs."""
    modes = {
        word
        for key in ("head_start_ray_commands", "worker_start_ray_commands")
        for line in prepared[key]
        if "ray start" in line
        for word in shlex.split(line)
        if word.startswith("RAY_AUTH_MODE=")
    }
    assert len(modes) == 1
