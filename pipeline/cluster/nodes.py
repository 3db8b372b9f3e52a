"""Every node of the cluster, and whether it sees what this process sees.

On one machine all processes have the same files. The nodes of a cluster have disks of their own:
what is on this one's alone would be missing to a task elsewhere, or be written where nobody looks
for it; so that is found out before the work begins (issue 17, 3).
"""

import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from heliograph.pipeline.cluster.start import GROWS_TO
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.request.placement import ray_address
from heliograph.pipeline.storage.filesystems import absolute

SECONDS_TO_APPEAR = 5.0
"""For a new file on a network's file system, of which a node may remember that it was not there."""
NODES_NAMED = 3


def check_shared(folder: str, key: str) -> None:
    """That all nodes see what this process writes to a folder; a URL is the same from everywhere.

    Args:
        key: what a user calls the folder.

    Raises:
        RequestError: one does not.
    """
    path = absolute(folder.removeprefix("file://"))
    if "://" not in path and (blind := blind_to(path)):
        raise RequestError(
            f"{key} {folder!r} is on this node's own disk, and {blind} cannot see what is written "
            "there; valid: a bucket, s3://…, or a folder that every node has mounted"
        )


def check_seen(files: Sequence[str]) -> None:
    """That all nodes have these files of this machine's, and of the same size.

    Raises:
        RequestError: one does not.
    """
    if not files or not has_others():
        return
    sizes = {path: os.path.getsize(path) for path in files}
    for node, missing in ask_all(_missing, sizes).items():
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise RequestError(
                f"{missing[0]!r}{more} is on this node's own disk, and not on {node}, which may "
                "have to read it; valid: a hub name, a bucket, or a folder that every node has "
                "mounted"
            )


def blind_to(folder: str) -> str:
    """The names of the nodes that do not see what is written to a folder here; "": all do."""
    if not has_others():
        return ""
    mark = Path(folder, f".seen-{secrets.token_hex(8)}")
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    try:
        answers = ask_all(_missing, {str(mark): 0})
    finally:
        mark.unlink(missing_ok=True)
    return in_words([name for name, missing in answers.items() if missing])


def has_others() -> bool:
    """Whether there are nodes beside this one, or will be."""
    return ray_address() is not None and (len(alive()) > 1 or GROWS_TO in os.environ)


def ask_all(question: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """Each node's answer, by its name: of those that there are now, and that run a task."""
    asked = {name_of(node): there(node, question).remote(*arguments) for node in alive()}
    answers = {}
    for name, answer in asked.items():
        try:
            answers[name] = ray.get(answer)
        except ray.exceptions.RayError:  # it was lost just now
            continue
    return answers


def there(node: Mapping[str, Any], function: Callable[..., Any]) -> Any:
    """The function as a task on this node, which takes nothing from other work."""
    on_it = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=on_it, max_retries=0)(function)


def alive() -> list[dict[str, Any]]:
    """As Ray describes them."""
    return [node for node in ray.nodes() if node["Alive"]]


def name_of(node: Mapping[str, Any]) -> str:
    """Distinct also where one machine plays several nodes."""
    return f"{node['NodeManagerHostname']}-{node['NodeID'][:6]}"


def in_words(nodes: Sequence[str]) -> str:
    """The first few of them, and how many more there are."""
    more = len(nodes) - NODES_NAMED
    return ", ".join(nodes[:NODES_NAMED]) + (f" and {more} more" if more > 0 else "")


def _missing(sizes: Mapping[str, int]) -> list[str]:
    """Which of the files this machine does not have."""
    missing, deadline = list(sizes), time.monotonic() + SECONDS_TO_APPEAR
    while missing := [path for path in missing if _size(path) != sizes[path]]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    return missing


def _size(path: str) -> int | None:
    try:
        return os.path.getsize(path)
    except OSError:
        return None
