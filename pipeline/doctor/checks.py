"""What a diagnosis found, judged: each check is a line, with a way on unless all is well."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from heliograph.pipeline.doctor.node import NodeReport, Room
from heliograph.pipeline.request import recipe
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.request.placement import Nodes, place

Status = Literal["ok", "warn", "fail"]

GIB = 2**30
LEAST_SHARED_MEMORY = GIB
LEAST_ROOM, LITTLE_ROOM = 2 * GIB, 10 * GIB
FULL = 0.95
"""Ray starts nothing and spills nothing where its folder is fuller."""
LARGEST_SKEW, NOTICEABLE_SKEW = 60.0, 2.0
"""Object stores refuse requests that are minutes off; metrics of nodes are put in order by time."""


@dataclass(frozen=True)
class Check:
    """What was looked at, what was found and, unless that is well, what to do."""

    name: str
    status: Status
    found: str
    way_on: str = ""

    def line(self) -> str:
        return f"{self.status:4}  {self.name}: {self.found}" + (
            f"\n      → {self.way_on}" if self.way_on else ""
        )


def check_versions(reports: Sequence[NodeReport]) -> Check:
    """Workers exchange pickled functions and tensors: what makes those must be alike."""
    different = []
    for package in reports[0].versions if reports else ():
        found: dict[str, list[str]] = {}
        for report in reports:
            found.setdefault(report.versions.get(package, "missing"), []).append(report.name)
        if len(found) > 1:
            where = "; ".join(f"{number} on {', '.join(names)}" for number, names in found.items())
            different.append(f"{package}: {where}")
    if different:
        way_on = "give all nodes one image, or install constraints.txt on each"
        return Check("versions", "fail", " | ".join(different), way_on)
    alike = ", ".join(f"{name} {number}" for name, number in reports[0].versions.items())
    return Check("versions", "ok", f"alike on all nodes: {alike}")


def check_clocks(skews: dict[str, float]) -> Check:
    """Args: skews: seconds by which each node's clock is ahead of this one's, at least."""
    node = max(skews, key=lambda each: abs(skews[each]))
    worst = skews[node]
    found = f"{node} is {abs(worst):.1f} s {'ahead' if worst > 0 else 'behind'}"
    if abs(worst) < NOTICEABLE_SKEW:
        return Check("clocks", "ok", f"within {max(abs(worst), 0.1):.1f} s of each other")
    status: Status = "fail" if abs(worst) > LARGEST_SKEW else "warn"
    return Check("clocks", status, found, "run chrony or systemd-timesyncd on every node")


def check_resources(
    reports: Sequence[NodeReport], resources: dict[str, dict[str, float]], nodes: Sequence[Nodes]
) -> Check:
    """Whether Ray counts the GPUs and CPUs that there are.

    Args:
        resources: by node what Ray has of each.
        nodes: of the whole cluster, as large as it can grow.
    """
    cpus = sum(each.count * each.cpus for each in nodes)
    gpus = sum(each.count * each.gpus for each in nodes)
    has = f"{cpus:g} CPUs and {gpus:g} GPUs"
    for report in reports:
        counted = resources.get(report.name, {})
        if report.gpus > counted.get("GPU", 0):
            found = f"{report.name} has {report.gpus} GPUs, Ray counts {counted.get('GPU', 0):g}"
            way_on = "start Ray there with --num-gpus, and look at CUDA_VISIBLE_DEVICES"
            return Check("resources", "warn", f"{has}; {found}", way_on)
        if counted.get("CPU", 0) > report.cpus > 0:
            found = f"Ray counts {counted['CPU']:g} CPUs on {report.name}, which has {report.cpus}"
            way_on = "start Ray there without --num-cpus, or with fewer"
            return Check("resources", "warn", f"{has}; {found}", way_on)
    return Check("resources", "ok", has)


def check_placement(cluster: recipe.Cluster, nodes: Sequence[Nodes]) -> Check:
    """Whether the recipe's workers find room, as `train` asks it."""
    try:
        placement = place(cluster, nodes)
    except RequestError as error:
        return Check("placement", "fail", str(error), "change the recipe's section cluster")
    found = f"{placement.workers} workers with {placement.cpus_per_worker:g} CPUs"
    return Check("placement", "ok", found + (" and a GPU each" if placement.use_gpu else " each"))


def check_shared_memory(reports: Sequence[NodeReport]) -> Check:
    """Ray's objects and NCCL's buffers lie there; containers are given 64 MB by default."""
    known = {report.name: report.shared_memory for report in reports if report.shared_memory}
    if not known:
        return Check("shared memory", "ok", "not a file system here")
    node, least = min(known.items(), key=lambda each: each[1].total)
    found = f"{_size(least.total)} on {node}"
    if least.total < LEAST_SHARED_MEMORY:
        way_on = "start its container with --shm-size=8g, or an emptyDir of medium Memory"
        return Check("shared memory", "warn", f"only {found}", way_on)
    return Check("shared memory", "ok", f"at least {found}")


def check_disks(reports: Sequence[NodeReport]) -> Check:
    """Ray's own folder on every node, and the storage where it is a folder."""
    rooms = [
        (room.free, room, f"{place} on {report.name}")
        for report in reports
        for place, room in (("Ray's folder", report.temporary), ("storage", report.storage_room))
        if room is not None
    ]
    if not rooms:
        return Check("disks", "warn", "no node told how full its disks are")
    _, room, where = min(rooms, key=lambda each: each[0])
    found = f"{_size(room.free)} of {_size(room.total)} free for {where}"
    return _judge_room(room, found)


def _judge_room(room: Room, found: str) -> Check:
    way_on = "make room, or start Ray with --temp-dir, and set storage, on a larger disk"
    if room.free < LEAST_ROOM or room.free < (1 - FULL) * room.total:
        return Check("disks", "fail", f"only {found}", way_on)
    if room.free < LITTLE_ROOM:
        return Check("disks", "warn", f"only {found}", way_on)
    return Check("disks", "ok", f"least: {found}")


def check_token(reports: Sequence[NodeReport]) -> Check:
    """Whoever reaches Ray's ports runs what he likes there, unless a token is asked for."""
    without = [report.name for report in reports if report.token_mode != "token"]
    if not without:
        return Check("token", "ok", "Ray asks for a token")
    way_on = (
        "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN for `ray start` on every node, and here; or "
        "let nobody else into its network"
    )
    return Check("token", "warn", f"Ray takes commands from anybody ({', '.join(without)})", way_on)


def check_storage(seen: set[str], reports: Sequence[NodeReport]) -> Check:
    """Whether each node could write, and whether they all wrote to the same place.

    Args:
        seen: the names of the nodes whose files this process finds in the storage.
    """
    way_on = "set storage to a bucket, or to a folder that is mounted and writable on every node"
    failed = [f"{each.name}: {each.storage_error}" for each in reports if each.storage_error]
    if failed:
        return Check("storage", "fail", "cannot be written from " + " | ".join(failed), way_on)
    strangers = [each.name for each in reports if each.name not in seen]
    if strangers:
        found = f"what {', '.join(strangers)} wrote is not seen here: it is not the same storage"
        return Check("storage", "fail", found, way_on)
    return Check("storage", "ok", f"written from all {len(reports)} nodes, and read here")


def check_tracking_from_nodes(uri: str, reports: Sequence[NodeReport]) -> Check:
    """Rank 0, the node monitors and the last step of a job talk to it from there."""
    failed = [f"{each.name}: {each.tracking_error}" for each in reports if each.tracking_error]
    if failed:
        way_on = (
            "MLFLOW_TRACKING_URI and its credentials must be right on every node, not only here "
            "(`heliograph submit` passes them on), and the server must let the nodes in: a "
            "firewall, --allowed-hosts"
        )
        found = f"{uri} does not take an artifact from " + " | ".join(failed)
        return Check("tracking from nodes", "fail", found, way_on)
    return Check("tracking from nodes", "ok", f"all {len(reports)} nodes wrote an artifact")


def check_server_version(uri: str, number: str, own: str) -> Check:
    """The two talk by an interface that changes with the major version."""
    found = f"{uri}: MLflow {number}"
    if number.split(".")[0] != own.split(".")[0]:
        way_on = "give server and clients the same major version"
        return Check("tracking server", "warn", f"{found}, here {own}", way_on)
    return Check("tracking server", "ok", found)


def _size(count: int) -> str:
    return f"{count / GIB:.1f} GiB"
