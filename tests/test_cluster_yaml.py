"""cluster.yaml is what `ray up` accepts, and what Ray does not check of it holds, too."""

import copy
import inspect
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.aws import config as aws
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start

from heliograph.pipeline.cluster.start import GROWS_TO, capacity
from heliograph.pipeline.request.placement import ACCELERATOR, place
from heliograph.pipeline.request.recipe_file import load_recipe

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
    assert "InstanceMarketOptions" not in head["node_config"], "it must not be taken away"


def workers(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    types = config["available_node_types"].items()
    return {name: kind for name, kind in types if name != config["head_node_type"]}


def test_workers_come_and_go(prepared: dict[str, Any]) -> None:
    kinds = workers(prepared).values()
    assert all(kind["min_workers"] == 0 for kind in kinds), "an idle cluster is the head alone"
    assert prepared["max_workers"] == sum(kind["max_workers"] for kind in kinds)
    assert 0 < prepared["idle_timeout_minutes"] <= 30


def test_there_are_machines_of_every_kind(prepared: dict[str, Any]) -> None:
    """GPUs by the hour and for as long as nobody else pays more, and CPUs for the data."""
    kinds = workers(prepared)
    for kind in kinds.values():
        spot = kind["node_config"].get("InstanceMarketOptions") == {"MarketType": "spot"}
        assert kind["labels"]["market"] == ("spot" if spot else "on-demand")
        gpus = kind["resources"].get("GPU", 0)
        assert kind["labels"]["role"] == ("training" if gpus else "data")
        assert (ACCELERATOR in kind["labels"]) == bool(gpus)
    offered = {(kind["labels"]["role"], kind["labels"]["market"]) for kind in kinds.values()}
    assert offered >= {("training", "spot"), ("training", "on-demand"), ("data", "spot")}
    assert kinds["gpu_spot"]["priority"] > kinds["gpu_on_demand"]["priority"], "the cheap first"


def test_the_cluster_recipe_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """recipes/base.yaml is written for this cluster, and its data have nodes of their own."""
    monkeypatch.setenv(GROWS_TO, str(ROOT / "cluster.yaml"))
    placement = place(load_recipe(ROOT / "recipes/base.yaml").cluster, capacity())
    assert placement.use_gpu
    assert placement.cpus_per_worker == 8


def test_storage_is_where_the_recipe_looks_for_it(prepared: dict[str, Any]) -> None:
    storage = load_recipe(ROOT / "recipes/base.yaml").storage
    assert f"--volume {storage}:{storage}" in prepared["docker"]["run_options"]
    mounts = [line for line in prepared["initialization_commands"] if "sudo mount " in line]
    assert [line.split()[-1] for line in mounts] == [storage]


def test_every_node_runs_the_project_s_image(prepared: dict[str, Any]) -> None:
    """And needs no more: what is installed at start is not what was tested."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    docker = prepared["docker"]
    assert docker["head_image"].endswith(f"/heliograph:{version}-cpu")
    for kind in workers(prepared).values():
        device = "gpu" if kind["resources"].get("GPU") else "cpu"
        image = kind.get("docker", {}).get("worker_image", docker["worker_image"])
        assert image.endswith(f"/heliograph:{version}-{device}")
    assert prepared["head_setup_commands"] == prepared["worker_setup_commands"] == []


def test_all_nodes_demand_the_same_token(written: dict[str, Any]) -> None:
    """A head that demands tokens from workers without one makes a cluster that hangs."""
    options = shlex.split(" ".join(written["docker"]["run_options"]))
    variables = {options[n + 1] for n, word in enumerate(options) if word == "--env"}
    assert "RAY_AUTH_MODE=token" in variables
    assert written["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"
    assert not any("AUTH" in line for line in start_commands(written)), "nothing says otherwise"
    [limits] = [each.partition("=")[2] for each in variables if each.startswith(GROWS_TO)]
    assert written["file_mounts"][limits] == "cluster.yaml"


def start_commands(config: dict[str, Any]) -> list[str]:
    keys = ("head_start_ray_commands", "worker_start_ray_commands")
    return [line for key in keys for line in config[key] if line.startswith("ray start")]


def test_ray_start_takes_these_options(written: dict[str, Any]) -> None:
    # make_context uses its list up.
    head, worker = (
        start.make_context("ray start", shlex.split(line)[2:]).params
        for line in start_commands(written)
    )
    assert head["dashboard_host"] == "127.0.0.1"
    assert head["num_cpus"] == 0
    assert worker["address"] == "$RAY_HEAD_IP:6379"


def test_what_is_to_be_changed_is_marked(written: dict[str, Any]) -> None:
    """A placeholder that `ray up` would take for a name, and what depends on the place."""
    text = (ROOT / "cluster.yaml").read_text(encoding="utf-8")
    assert text.count("CHANGE") - 1 == 4  # its head says what the mark means
    placeholders = {"YOUR-REGISTRY", "YOUR-FILE-SYSTEM", "YOUR-IMAGE"}
    assert set(re.findall(r"YOUR-[A-Z-]+", text)) == placeholders


def test_the_provider_knows_its_settings(written: dict[str, Any]) -> None:
    """Ray looks at no key in there: a misspelt one would do nothing."""
    known = {"type", "region", "availability_zone", "cache_stopped_nodes", "security_group"}
    assert written["provider"].keys() <= known
    assert written["provider"]["availability_zone"].startswith(written["provider"]["region"])


def rights_beyond_rays_role(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Action and resource, of what the head does on AWS that the role which Ray makes may not: it
    may all of EC2 and S3."""
    for name, kind in config["available_node_types"].items():
        node = kind["node_config"]
        if name == config["head_node_type"]:
            continue  # `ray up` starts it, with its user's rights
        if parameter := node.get("ImageId", "").partition("resolve:ssm:")[2]:
            yield (
                "ssm:GetParameters",
                f"arn:aws:ssm:{config['provider']['region']}::parameter{parameter}",
            )
        if profile := node.get("IamInstanceProfile"):
            role = profile.get("Name") or profile["Arn"].rpartition("/")[2]
            yield "iam:PassRole", f"arn:aws:iam::123456789012:role/{role}"


def not_allowed(config: dict[str, Any]) -> list[tuple[str, str]]:
    """Of these what the policy that deploy/README.md adds does not allow either."""
    policy = json.loads((ROOT / "deploy/aws/head-policy.json").read_text(encoding="utf-8"))
    return [
        (action, resource)
        for action, resource in rights_beyond_rays_role(config)
        if not any(
            action == allowed["Action"] and fnmatchcase(resource, allowed["Resource"])
            for allowed in policy["Statement"]
        )
    ]


def test_the_head_may_start_the_workers(written: dict[str, Any]) -> None:
    """All that cluster.yaml names, and the profile for workers that its comment does."""
    assert list(rights_beyond_rays_role(written)) == []
    text = (ROOT / "cluster.yaml").read_text(encoding="utf-8")
    [profile] = re.findall(r"`IamInstanceProfile: (\{.*\})`", text)
    assert not_allowed(with_worker(written, IamInstanceProfile=yaml.safe_load(profile))) == []


@pytest.mark.parametrize(
    ("setting", "action"),
    [
        ({"ImageId": "resolve:ssm:/aws/service/image"}, "ssm:GetParameters"),
        ({"IamInstanceProfile": {"Name": "ray-autoscaler-v1"}}, "iam:PassRole"),
        ({"IamInstanceProfile": {"Arn": "arn:aws:iam::1:instance-profile/mine"}}, "iam:PassRole"),
    ],
)
def test_a_right_that_nothing_gives_is_seen(
    written: dict[str, Any], setting: dict[str, Any], action: str
) -> None:
    assert [needed for needed, _ in not_allowed(with_worker(written, **setting))] == [action]


def with_worker(config: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """A copy, in which one kind of workers has other settings."""
    changed = copy.deepcopy(config)
    changed["available_node_types"]["gpu_spot"]["node_config"] |= settings
    return changed


def test_ray_makes_the_head_s_role_as_it_is_described(written: dict[str, Any]) -> None:
    """If it came with other rights, or by another name, the commands would be others."""
    assert "IamInstanceProfile" not in written["available_node_types"]["head"]["node_config"]
    attached = re.findall(
        r"arn:aws:iam::aws:policy/(\w+)", inspect.getsource(aws._configure_iam_role)
    )
    assert attached == ["AmazonEC2FullAccess", "AmazonS3FullAccess"]
    said = (ROOT / "deploy/README.md").read_text(encoding="utf-8")
    assert f"put-role-policy --role-name {aws.DEFAULT_RAY_IAM_ROLE} " in said
    assert "--policy-document file://deploy/aws/head-policy.json" in said
