"""Hosts with addresses of their own on one machine: network namespaces on a bridge.

The bridge is in a namespace too, so nothing of the machine's own network is touched, and nothing
outside can be reached from a host. All hosts see the same files, as on a shared file system, but
for a disk of their own, where they have one.
"""

import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType

from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]


def what_is_missing() -> str | None:
    """Why no hosts can be made on this machine; None: they can be."""
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    for tool in ("ip", "ss", "unshare", "mount", "hostname"):
        if shutil.which(tool) is None:
            return f"the command {tool} is not installed"
    name = f"probe-{secrets.token_hex(3)}"
    try:
        ip("netns", "add", name)
        try:
            ip("-n", name, "link", "add", "one", "type", "veth", "peer", "name", "two")
            ip("-n", name, "link", "add", "bridge", "type", "bridge")
        finally:
            ip("netns", "del", name)
    except subprocess.CalledProcessError as error:
        return f"network namespaces: {error.stderr.strip()}"
    return None


class Host:
    """One host; see `Lan`."""

    def __init__(self, lan: "Lan", number: int) -> None:
        self.name, self.address = f"host-{number}", f"10.77.0.{number}"
        self._lan, self._cable, self._disk = lan.namespace, f"cable-{number}", lan.disk
        self.namespace = f"{lan.namespace}-{number}"
        self.folder = lan.folder / self.name
        self.disk = self.folder / "disk"
        """What it sees at the LAN's `disk`, and no other host does."""
        for folder in (self.folder / "ray", self.disk):
            folder.mkdir(parents=True)
        ip("netns", "add", self.namespace)
        peer = ("peer", "name", "eth0", "netns", self.namespace)
        ip("-n", self._lan, "link", "add", self._cable, "type", "veth", *peer)
        ip("-n", self._lan, "link", "set", self._cable, "master", "bridge", "up")
        ip("-n", self.namespace, "address", "add", f"{self.address}/24", "dev", "eth0")
        for device in ("eth0", "lo"):
            ip("-n", self.namespace, "link", "set", device, "up")

    def run(
        self,
        words: Sequence[str],
        environment: Mapping[str, str],
        folder: Path | None = None,
        stdout: Path | None = None,
    ) -> subprocess.Popen[bytes]:
        """A command on this host.

        Args:
            folder: where it runs; the host's own if it is not said.
            stdout: a file for its standard output; all else is added to the host's log.
        """
        # Within a mount and a host name of the command's own.
        script = f'{self._mounts()} && hostname {self.name} && exec "$@"'
        inside = ["unshare", "--uts", "--mount", "sh", "-c", script, "sh", *words]
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("RAY_", "MLFLOW_"))
        }
        Path("/tmp/ray").mkdir(exist_ok=True)
        with self.log.open("ab") as log, (stdout or self.log).open("ab") as out:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, *inside],
                cwd=folder or self.folder,
                env=inherited | {"PYTHONPATH": str(ROOT)} | environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                start_new_session=True,
                # A shell's background commands ignore it, and what they start would inherit that.
                preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
            )

    def start_ray(self, cpus: int, environment: Mapping[str, str], head: "Host | None") -> None:
        """A Ray node on this host: of the head's cluster, or the head itself, whose job server
        listens on the host's address. Returns when it runs."""
        role = ["--head", "--port", "6379", "--dashboard-host", self.address]
        if head is not None:
            role = ["--address", f"{head.address}:6379"]
        ray = self.run(
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block"),
                *("--node-ip-address", self.address, "--num-cpus", str(cpus)),
                *("--object-store-memory", "200000000", "--disable-usage-stats"),
                *role,
            ],
            environment,
        )

        def runs() -> bool:
            assert ray.poll() is None, self.log.read_text()
            return "Ray runtime started" in self.log.read_text()

        wait_until(runs, self.log.read_text, pause=0.1)

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def cut_off(self) -> None:
        """Pull the cable: no process notices at once, and none ends."""
        ip("-n", self._lan, "link", "set", self._cable, "down")

    def reconnect(self) -> None:
        ip("-n", self._lan, "link", "set", self._cable, "up")

    def listens_at(self, port: int) -> set[str]:
        """The addresses at which this host takes connections to the port."""
        lines = ip("netns", "exec", self.namespace, "ss", "-ltnH", f"sport = :{port}").splitlines()
        return {line.split()[3].rpartition(":")[0] for line in lines}

    def processes(self) -> list[int]:
        return [int(pid) for pid in ip("netns", "pids", self.namespace).split()]

    def kill(self) -> None:
        """SIGKILL to all its processes, again until none is left."""
        while processes := self.processes():
            for process in processes:
                try:
                    os.kill(process, signal.SIGKILL)
                except ProcessLookupError:
                    continue

    def _mounts(self) -> str:
        """What gives it files of its own, as shell commands."""
        hosts = self.folder / "hosts"
        hosts.write_text(f"127.0.0.1 localhost\n{self.address} {self.name}\n")
        own = {"/etc/hosts": hosts, "/tmp/ray": self.folder / "ray", str(self._disk): self.disk}
        words = [["mount", "--bind", str(path), place] for place, path in own.items()]
        return " && ".join(map(shlex.join, words))


class Lan:
    """Hosts on one bridge; a context manager, which ends all of their processes.

    Args:
        folder: for what each host keeps to itself.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.disk = folder / "disk"
        """A place at which each host has files of its own."""
        self.disk.mkdir(parents=True)
        self.namespace = f"heliograph-{secrets.token_hex(3)}"
        self.hosts: list[Host] = []

    def add(self) -> Host:
        self.hosts.append(Host(self, len(self.hosts) + 1))
        return self.hosts[-1]

    def __enter__(self) -> "Lan":
        ip("netns", "add", self.namespace)
        ip("-n", self.namespace, "link", "add", "bridge", "type", "bridge")
        ip("-n", self.namespace, "link", "set", "bridge", "up")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for host in self.hosts:
            host.kill()
            ip("netns", "del", host.namespace)
        ip("netns", "del", self.namespace)


PATIENCE = {"RAY_raylet_start_wait_time_s": "170"}
"""A node may take long to start on a busy machine; left to itself Ray gives up after 30 seconds."""
NOTICE = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "4",
}
"""A host that does not answer is given up after 12 seconds; left to itself Ray takes 65."""


@dataclass
class Cluster:
    """A Ray cluster with tokens: a head, which trains nothing, and hosts with two CPUs each."""

    lan: Lan
    head: Host
    workers: list[Host]
    environment: dict[str, str]
    """What Ray's processes on all hosts have; who talks to them needs the RAY_AUTH_ ones."""

    def add(self) -> Host:
        self.workers.append(self.lan.add())
        self.workers[-1].start_ray(2, self.environment, self.head)
        return self.workers[-1]


@contextmanager
def ray_cluster(folder: Path, workers: int, head_cpus: int = 1) -> Iterator[Cluster]:
    """Such a cluster, of which the hosts keep what is theirs in the folder."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    python = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment = token | python | NOTICE | PATIENCE
    with Lan(folder) as lan:
        head = lan.add()
        head.start_ray(head_cpus, environment, head=None)
        cluster = Cluster(lan, head, [], environment)
        for _ in range(workers):
            cluster.add()
        yield cluster


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout
