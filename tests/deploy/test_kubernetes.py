"""deploy/kubernetes is cluster.yaml for KubeRay, and what KubeRay takes."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for

from heliograph.pipeline.cluster.start import GROWS_TO, capacity
from heliograph.pipeline.request.recipe_file import load_recipe

ROOT = Path(__file__).parents[2]
FILES = {"cluster": "raycluster.yaml", "job": "rayjob.yaml"}


def documents(what: str) -> list[dict[str, Any]]:
    text = (ROOT / "deploy/kubernetes" / FILES[what]).read_text(encoding="utf-8")
    return list(yaml.safe_load_all(text))


@pytest.fixture(scope="module")
def validator() -> Validator:
    """Of KubeRay's own schema, with unknown keys forbidden: Kubernetes would drop them, and say
    nothing."""
    schema = json.loads((Path(__file__).parent / "rayjob.schema.json").read_text())

    def close(part: Any) -> None:
        if isinstance(part, dict):
            if "properties" in part and "x-kubernetes-preserve-unknown-fields" not in part:
                part.setdefault("additionalProperties", False)
            for value in part.values():
                close(value)

    close(schema["properties"]["spec"])
    kind = validator_for(schema)
    kind.check_schema(schema)  # once: it takes seconds
    return kind(schema)


def specs() -> Iterator[tuple[str, dict[str, Any]]]:
    """The spec of the cluster in both files."""
    yield "cluster", documents("cluster")[-1]["spec"]
    yield "job", documents("job")[-1]["spec"]["rayClusterSpec"]


def pods(spec: dict[str, Any]) -> list[dict[str, Any]]:
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


@pytest.mark.parametrize("what", FILES)
def test_the_files_are_made_from_cluster_yaml(what: str) -> None:
    """`make kubernetes` writes them."""
    found = importlib.util.spec_from_file_location("kubernetes", ROOT / "deploy/kubernetes.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    assert (ROOT / "deploy/kubernetes" / FILES[what]).read_text(encoding="utf-8") == module.main(
        what
    )


def test_kuberay_takes_them(validator: Validator) -> None:
    of_cluster = validator.schema["properties"]["spec"]["properties"]["rayClusterSpec"]
    validator.evolve(schema=of_cluster).validate(documents("cluster")[-1]["spec"])
    validator.validate(documents("job")[-1])


@pytest.mark.parametrize(
    ("key", "value"),
    [("rayVersion", 2.6), ("enableInTreeAutoscaling", "yes"), ("workerGroupSpec", [])],
)
def test_the_schema_refuses_a_broken_copy(validator: Validator, key: str, value: Any) -> None:
    broken = documents("job")[-1]
    broken["spec"]["rayClusterSpec"][key] = value
    with pytest.raises(ValidationError):
        validator.validate(broken)


@pytest.mark.parametrize("what", FILES)
def test_what_is_referred_to_is_there(what: str) -> None:
    """Secrets apart, which are made by hand, and the claim that the cluster's file makes."""
    made = {
        (each["kind"], each["metadata"].get("name"))
        for each in [*documents(what), documents("cluster")[0]]
    }
    for pod in pods(dict(specs())[what]):
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        [container] = pod["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
        claim = volumes["storage"]["persistentVolumeClaim"]["claimName"]
        assert ("PersistentVolumeClaim", claim) in made
        assert ("ConfigMap", volumes["limits"]["configMap"]["name"]) in made
        mounted = [mount["mountPath"] for mount in container["volumeMounts"]]
        assert load_recipe(ROOT / "recipes/base.yaml").storage in mounted


@pytest.mark.parametrize(("what", "spec"), specs())
def test_no_secret_is_written_down(what: str, spec: dict[str, Any]) -> None:
    assert spec["authOptions"] == {"mode": "token", "secretName": "heliograph-ray-token"}
    for pod in pods(spec):
        [container] = pod["containers"]
        assert container["envFrom"] == [{"secretRef": {"name": "heliograph-mlflow"}}]
        assert {each["name"] for each in container["env"]} == {GROWS_TO}


@pytest.mark.parametrize(("what", "spec"), specs())
def test_workers_come_and_go(what: str, spec: dict[str, Any]) -> None:
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in spec["workerGroupSpecs"]:
        assert group["replicas"] == group["minReplicas"] == 0 < group["maxReplicas"]
        # It becomes part of a pod's name.
        assert group["groupName"].replace("-", "").isalnum()


def test_a_job_is_judged_as_on_the_launched_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ConfigMap says the same of how far the cluster grows as cluster.yaml does."""
    (tmp_path / "limits.yaml").write_text(documents("cluster")[1]["data"]["cluster.yaml"])
    monkeypatch.setenv(GROWS_TO, str(tmp_path / "limits.yaml"))
    on_kubernetes = capacity()
    monkeypatch.setenv(GROWS_TO, str(ROOT / "cluster.yaml"))
    assert on_kubernetes == capacity()
