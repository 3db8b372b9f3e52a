"""What is wrong with a cluster, its storage and its tracking server: looked at for real."""

import os
import secrets
import socket
import time
from contextlib import ExitStack
from importlib.metadata import version

import ray

from heliograph.pipeline.cluster.nodes import alive, name_of, there
from heliograph.pipeline.cluster.start import capacity, start_ray
from heliograph.pipeline.doctor.checks import (
    Check,
    check_clocks,
    check_disks,
    check_placement,
    check_resources,
    check_server_version,
    check_shared_memory,
    check_storage,
    check_token,
    check_tracking_from_nodes,
    check_versions,
)
from heliograph.pipeline.doctor.node import NodeReport, Question, look_around_here
from heliograph.pipeline.doctor.server import (
    Probe,
    artifact_error,
    is_server,
    open_probe,
    server_version,
    webhook_error,
)
from heliograph.pipeline.request import recipe
from heliograph.pipeline.request.errors import one_line
from heliograph.pipeline.storage.filesystems import filesystem_of
from heliograph.pipeline.storage.listing import list_folder

SECONDS_TO_REACH = 5.0
SECONDS_TO_ANSWER = 120.0
"""For all nodes together: each starts a process, and tries storage and tracking server."""
PINGS = 3


def examine(cluster: recipe.Cluster | None, storage: str | None, uri: str) -> list[Check]:
    """All checks. What cannot be reached fails, and what depends on it is left out.

    Args:
        cluster: what a job would ask for. None: whatever there is, is enough.
        storage: None: not looked at.
        uri: of the tracking server.
    """
    with ExitStack() as stack:
        probe, checks = _examine_server(uri, stack)
        reached = check_cluster(os.environ.get("RAY_ADDRESS"))
        if reached.status == "fail":
            return [reached, *checks]
        question = Question(_own_folder(storage), probe)
        reports = _ask_nodes(question)
        answers = [report for report in reports if not isinstance(report, Check)]
        by_node = {name_of(node): node["Resources"] for node in alive()}
        nodes = capacity()
        return [
            reached,
            *(report for report in reports if isinstance(report, Check)),
            *([check_versions(answers)] if answers else []),
            *([check_clocks(skews)] if (skews := _skews()) else []),
            check_resources(answers, by_node, nodes),
            *([] if cluster is None else [check_placement(cluster, nodes)]),
            check_shared_memory(answers),
            check_disks(answers),
            check_token(answers),
            *([] if storage is None else [check_storage(_seen(question.storage), answers)]),
            *checks,
            *([] if probe is None else [check_tracking_from_nodes(uri, answers)]),
        ]


def check_cluster(address: str | None) -> Check:
    """Whether Ray can be joined at the address, or be started here."""
    name, where = "cluster", address or "this machine"
    try:
        if address and ":" in address and "://" not in address:
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), SECONDS_TO_REACH).close()
        start_ray()
    except (OSError, ValueError) as error:
        way_on = (
            "is Ray's head up, and is this its GCS address, HEAD:6379? From outside the cluster: "
            "heliograph submit doctor --address http://HEAD:8265"
        )
        return Check(name, "fail", f"nothing answers at {where} ({one_line(error)})", way_on)
    except Exception as error:
        way_on = (
            "install the cluster's versions of Ray and Python here; where it demands a token, set "
            "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
        )
        return Check(name, "fail", f"{where} does not take this process: {one_line(error)}", way_on)
    nodes = alive()
    return Check(name, "ok", f"{where}: {len(nodes)} nodes, {', '.join(map(name_of, nodes))}")


def _examine_server(uri: str, stack: ExitStack) -> tuple[Probe | None, list[Check]]:
    """What a look from here says of the server, and a run for the nodes to try."""
    name = "tracking server"
    try:
        number = server_version(uri)
        probe = stack.enter_context(open_probe(uri))
    except Exception as error:
        way_on = "start it, or correct MLFLOW_TRACKING_URI, MLFLOW_TRACKING_USERNAME and _PASSWORD"
        return None, [Check(name, "fail", f"{uri} does not answer ({one_line(error)})", way_on)]
    checks = [check_server_version(uri, number, version("mlflow"))]
    error_of_artifacts = artifact_error(probe)
    way_on = "look at the server's --artifacts-destination, and at its rights there"
    checks.append(
        Check("artifact store", "ok", "a file was written and read back")
        if error_of_artifacts is None
        else Check("artifact store", "fail", error_of_artifacts, way_on)
    )
    if is_server(uri):
        wrong = webhook_error()
        checks.append(
            Check("webhook key", "ok", "the server keeps the secrets of webhooks")
            if wrong is None
            else Check("webhook key", "warn", wrong, "only `heliograph notify` needs it")
        )
    return probe, checks


def _ask_nodes(question: Question) -> list[NodeReport | Check]:
    """Every node's report, or what is wrong with a node that gives none."""
    asked = [
        (name_of(node), there(node, look_around_here).remote(question, name_of(node)))
        for node in alive()
    ]
    deadline = time.monotonic() + SECONDS_TO_ANSWER
    reports: list[NodeReport | Check] = []
    for name, answer in asked:
        try:
            reports.append(ray.get(answer, timeout=max(1.0, deadline - time.monotonic())))
        except Exception as error:
            way_on = "look at the raylet's log there; is heliograph installed on that node?"
            reports.append(
                Check("node", "fail", f"{name} runs no task ({one_line(error)})", way_on)
            )
    return reports


def _seen(storage: str | None) -> set[str]:
    """Whose files lie in the storage; they are removed."""
    assert storage is not None
    try:
        files, root = filesystem_of(storage)
        names = {info.base_name for info in list_folder(files, root)}
        files.delete_dir(root)
    except Exception:  # then the nodes say why, or it is another storage that they wrote to
        return set()
    return names


def _skews() -> dict[str, float]:
    """By node the seconds by which its clock is ahead, less what the way there may explain."""
    skews = {}
    for node in alive():
        task = there(node, _now)
        best = (float("inf"), 0.0)
        try:
            for _ in range(PINGS):
                begin = time.time()
                time_there = ray.get(task.remote(), timeout=SECONDS_TO_ANSWER)
                end = time.time()
                best = min(best, (end - begin, time_there - (begin + end) / 2))
        except Exception:  # a node that runs nothing was told of before
            continue
        way, skew = best
        certain = max(0.0, abs(skew) - way / 2)
        skews[name_of(node)] = certain if skew > 0 else -certain
    return skews


def _now() -> float:
    return time.time()


def _own_folder(storage: str | None) -> str | None:
    return None if storage is None else f"{storage.rstrip('/')}/doctor-{secrets.token_hex(4)}"
