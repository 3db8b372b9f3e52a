"""cluster.yaml for KubeRay: prints what `kubectl apply` takes. `make kubernetes` keeps the output.

    python deploy/kubernetes.py cluster > deploy/kubernetes/raycluster.yaml
    python deploy/kubernetes.py job > deploy/kubernetes/rayjob.yaml

The node types, their limits, labels and priorities, the images and the idle timeout are those of
cluster.yaml; what only Kubernetes has is here.
"""

import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
STORAGE, HOME = "/mnt/heliograph", "/home/ray"
# Of each CPU: what the machines of cluster.yaml have, with a margin for Kubernetes' own.
GIB_PER_CPU = 3

HEADER = """\
# Made from cluster.yaml by deploy/kubernetes.py (`make kubernetes`): change those, not this file.
# deploy/README.md says what has to be there first: KubeRay 1.6, two secrets and a storage class.
"""


def main(what: str) -> str:
    """The cluster to which jobs are submitted, or one that a single job brings and takes along."""
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))
    name = config["cluster_name"]
    if what == "cluster":
        kind = {"kind": "RayCluster", "metadata": {"name": name}, "spec": cluster(config)}
    else:
        kind = {"kind": "RayJob", "metadata": {"generateName": f"{name}-"}, "spec": job(config)}
    documents = [storage(name), limits(name, config), {"apiVersion": "ray.io/v1", **kind}]
    if what == "job":
        documents = documents[1:]  # storage is the cluster's file's: it stays when jobs go
    return HEADER + yaml.dump_all(documents, Dumper=_Plain, sort_keys=False, width=100)


def cluster(config: dict[str, Any]) -> dict[str, Any]:
    """spec of a RayCluster."""
    types, head = config["available_node_types"], config["head_node_type"]
    docker = config["docker"]
    cpu_image, gpu_image = docker["head_image"], docker["worker_image"]
    return {
        "rayVersion": ray_version(),
        # The secret's auth_token, in RAY_AUTH_TOKEN of every container of the cluster.
        "authOptions": {"mode": "token", "secretName": "heliograph-ray-token"},
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {
            "version": "v2",
            "idleTimeoutSeconds": config["idle_timeout_minutes"] * 60,
        },
        "headGroupSpec": {
            # The service in front of it is inside the cluster only, and asks for the token.
            "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"},
            "template": pod("ray-head", cpu_image, cpus=4, gpus=0),
        },
        "workerGroupSpecs": [
            group(name, kind, gpu_image if kind["resources"].get("GPU") else cpu_image)
            for name, kind in types.items()
            if name != head
        ],
    }


def group(name: str, kind: dict[str, Any], image: str) -> dict[str, Any]:
    """A node type as a worker group, from none to its limit."""
    cpus, gpus = kind["resources"]["CPU"], kind["resources"].get("GPU", 0)
    labels = kind["labels"]
    template = pod("ray-worker", image, cpus, gpus)
    # A label of Kubernetes' own nodes; who rents them names it otherwise (deploy/README.md).
    template["spec"]["nodeSelector"] = {"heliograph/market": labels["market"]}
    if gpus:
        tolerated = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
        template["spec"]["tolerations"] = [tolerated]
    return {
        "groupName": name.replace("_", "-"),
        "replicas": kind["min_workers"],
        "minReplicas": kind["min_workers"],
        "maxReplicas": kind["max_workers"],
        "priority": kind.get("priority", 0),
        "labels": labels,
        "rayStartParams": {},
        "template": template,
    }


def pod(container: str, image: str, cpus: int, gpus: int) -> dict[str, Any]:
    """A node of Ray's: its storage, what it is told of MLflow, and how large it is."""
    amounts = {"cpu": str(cpus), "memory": f"{cpus * GIB_PER_CPU}Gi"}
    if gpus:
        amounts["nvidia.com/gpu"] = str(gpus)
    return {
        "spec": {
            "automountServiceAccountToken": container == "ray-head",  # for the autoscaler
            "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "fsGroup": 1000},
            "containers": [
                {
                    "name": container,
                    "image": image,
                    "env": [{"name": "HELIOGRAPH_CLUSTER", "value": f"{HOME}/limits/cluster.yaml"}],
                    # MLFLOW_TRACKING_URI, _USERNAME and _PASSWORD.
                    "envFrom": [{"secretRef": {"name": "heliograph-mlflow"}}],
                    "resources": {"requests": dict(amounts), "limits": dict(amounts)},
                    "securityContext": {"allowPrivilegeEscalation": False},
                    "volumeMounts": [
                        {"name": "storage", "mountPath": STORAGE},
                        {"name": "limits", "mountPath": f"{HOME}/limits", "readOnly": True},
                        {"name": "shared-memory", "mountPath": "/dev/shm"},
                    ],
                }
            ],
            "volumes": [
                {"name": "storage", "persistentVolumeClaim": {"claimName": "heliograph-storage"}},
                {"name": "limits", "configMap": {"name": "heliograph-limits"}},
                # Ray's object store: without it 64 MiB.
                {
                    "name": "shared-memory",
                    "emptyDir": {"medium": "Memory", "sizeLimit": f"{max(cpus, 4)}Gi"},
                },
            ],
        }
    }


def job(config: dict[str, Any]) -> dict[str, Any]:
    """spec of a RayJob: the cluster, one training on it, and its end."""
    return {
        "entrypoint": f"heliograph train {HOME}/heliograph/recipes/base.yaml",
        "rayClusterSpec": cluster(config),
        # Another attempt of the same recipe goes on where the one before stopped.
        "backoffLimit": 2,
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": 600,
    }


def storage(name: str) -> dict[str, Any]:
    """Storage that all nodes reach, at the place that recipes/base.yaml names."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": f"{name}-storage"},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "500Gi"}},
        },
    }


def limits(name: str, config: dict[str, Any]) -> dict[str, Any]:
    """How far the cluster can grow, for HELIOGRAPH_CLUSTER: of cluster.yaml what that reads."""
    told = {
        "head_node_type": config["head_node_type"],
        "available_node_types": {
            kind: {
                key: values[key] for key in ("resources", "labels", "max_workers") if key in values
            }
            for kind, values in config["available_node_types"].items()
        },
    }
    text = yaml.dump(told, Dumper=_Plain, sort_keys=False)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{name}-limits"},
        "data": {"cluster.yaml": text},
    }


def ray_version() -> str:
    """As constraints.txt pins it."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return next(line.removeprefix("ray==") for line in lines if line.startswith("ray=="))


class _Plain(yaml.SafeDumper):
    """Without anchors, which not everything that reads a manifest knows; long texts as blocks."""

    def ignore_aliases(self, _: Any) -> bool:
        return True


_Plain.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    ),
)

if __name__ == "__main__":
    print(main(sys.argv[1]), end="")
