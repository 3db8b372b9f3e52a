"""A cluster that grows from no worker at all for a job, and shrinks after it."""

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest
import yaml
from ray._raylet import GcsClient
from ray.autoscaler._private.fake_multi_node.node_provider import (
    FAKE_HEAD_NODE_ID,
    FAKE_HEAD_NODE_TYPE,
    FakeMultiNodeProvider,
)
from ray.exceptions import RpcError

from heliograph.pipeline.cluster.start import GROWS_TO
from tests.small_job import Command, small_recipe
from tests.tracking_server import MlflowServer
from tests.waiting import LONG, wait_until

ROOT = Path(__file__).parents[2]
IDLE_SECONDS = 6


def fake_config(port: int) -> dict[str, Any]:
    """cluster.yaml, with machines that Ray's fake provider makes up on this one, and small ones."""
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))
    types = config["available_node_types"]
    types[FAKE_HEAD_NODE_TYPE] = types.pop("head")
    types["data_worker"]["resources"] = {"CPU": 2}
    for kind in types.values():
        kind["node_config"] = {}
        kind.pop("docker", None)
    return {
        "cluster_name": config["cluster_name"],
        "max_workers": config["max_workers"],
        "upscaling_speed": config["upscaling_speed"],
        "idle_timeout_minutes": IDLE_SECONDS / 60,
        "provider": {
            # Not by its name, fake_multinode: then Ray looks for a file that its wheel lacks.
            "type": "external",
            "module": f"{FakeMultiNodeProvider.__module__}.{FakeMultiNodeProvider.__name__}",
            "gcs_address": f"127.0.0.1:{port}",
            "head_node_id": FAKE_HEAD_NODE_ID,
            "launch_multiple": True,
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "head_node_type": FAKE_HEAD_NODE_TYPE,
        "available_node_types": types,
        # An external provider has no defaults, and Ray's monitor ends without these keys.
        "file_mounts": {},
        "cluster_synced_files": [],
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
    }


class GrowingCluster:
    """A head, and Ray's own autoscaler beside it. What is kept at home, as cluster.yaml puts it on
    each node, is the token."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        config = folder / "cluster.yaml"
        config.write_text(yaml.safe_dump(fake_config(port)), encoding="utf-8")
        (folder / ".ray").mkdir()
        (folder / ".ray/auth_token").write_text(os.environ["RAY_AUTH_TOKEN"])
        self.environment = {
            "HOME": str(folder),
            "RAY_AUTH_MODE": "token",
            "RAY_ADDRESS": self.address,
            "RAY_USAGE_STATS_ENABLED": "0",
            GROWS_TO: str(config),
        }
        clean = {name: each for name, each in os.environ.items() if not name.startswith("RAY_")}
        of_the_provider = {
            "RAY_FAKE_CLUSTER": "1",
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
        }
        words = ["start", "--head", "--block", "--num-cpus=0", f"--port={port}"]
        words += [f"--autoscaling-config={config}", "--include-dashboard=false"]
        words += [f"--temp-dir={folder}/r", "--node-ip-address=127.0.0.1"]
        self._gcs: GcsClient | None = None
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = psutil.Popen(
                [str(Path(sys.executable).parent / "ray"), *words],
                env=clean | self.environment | of_the_provider,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def workers(self) -> int:
        """How many nodes there are beside the head; -1: nothing answers yet."""
        assert self.process.poll() is None, self.log.read_text()
        if self._gcs is None:
            host, port = self.address.split(":")
            with socket.socket() as attempt:
                if attempt.connect_ex((host, int(port))):
                    return -1
            self._gcs = GcsClient(address=self.address)
        try:
            nodes = self._gcs.get_all_node_info(timeout=30).values()
        except RpcError:  # of a machine that is slow
            return -1
        return sum(node.state == 0 for node in nodes) - 1  # 0 is ALIVE

    def end(self) -> None:
        if self.process.poll() is not None:
            return
        family = self.process.children(recursive=True)
        self.process.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs([self.process, *family], timeout=5)
        for process in alive:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(alive, timeout=5)


@pytest.fixture
def cluster() -> Iterator[GrowingCluster]:
    # A short path: Ray's sockets lie below it.
    with TemporaryDirectory(prefix="grows-") as folder:
        cluster = GrowingCluster(Path(folder))
        try:
            wait_until(lambda: cluster.workers() == 0, pause=0.5, seconds=LONG)
            yield cluster
        finally:
            cluster.end()


@pytest.fixture
def tracking(tmp_path: Path) -> Iterator[str]:
    """A server's address, by this machine's name: a file on the head, or a server of its own, would
    be another on each node that is still to come."""
    (tmp_path / "mlflow").mkdir()
    name = socket.gethostname()
    allowed = {"MLFLOW_SERVER_ALLOWED_HOSTS": f"{name}:*"}
    server = MlflowServer(tmp_path / "mlflow", environment=allowed, host=name)
    server.start()
    yield server.url
    server.kill()


@pytest.mark.faults
@pytest.mark.timeout(4 * LONG)  # it waits for three things
def test_it_grows_for_a_job_and_shrinks_after_it(
    cluster: GrowingCluster, tracking: str, tmp_path: Path
) -> None:
    """Workers and data tasks on the machines that their labels name; the head has no CPU."""
    recipe = small_recipe(
        tmp_path,
        train={"steps": 4, "checkpoint_steps": 4},
        validation={"every_steps": 4, "sentences": 8},
        cluster={
            "workers": 2,
            "cpus_per_worker": 1,
            "gpu": False,
            "labels": {"role": "data"},
            "data_labels": {"role": "data"},
        },
    )
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    started = time.monotonic()
    words = ["heliograph.jobs.train", "recipe.yaml", "--json"]
    environment = cluster.environment | {"MLFLOW_TRACKING_URI": tracking}
    command = Command(words, tmp_path, environment)
    sizes: list[tuple[float, int]] = []
    try:
        while command.process.poll() is None:
            size = cluster.workers()
            if size >= 0 and (not sizes or sizes[-1][1] != size):
                sizes.append((time.monotonic() - started, size))
            assert time.monotonic() < started + LONG, command.said()
            time.sleep(0.5)
        assert command.process.wait() == 0, command.said()
    finally:
        command.kill()
    ended = time.monotonic()
    wait_until(lambda: cluster.workers() == 0, pause=0.5, seconds=LONG)
    seconds = time.monotonic() - ended
    result = command.result()
    assert result["steps"] == 4
    assert sizes[0][1] == 0
    assert max(size for _, size in sizes) >= 2, "two nodes: workers, and data beside them"
    grown = next(at for at, size in sizes if size > 0)
    print(
        f"first worker node after {grown:.1f} s, job ended after {ended - started:.1f} s, "
        f"no worker left {seconds:.1f} s later (idle time {IDLE_SECONDS} s); {sizes}"
    )
