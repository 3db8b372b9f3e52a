"""What a job may ask of a cluster. Imports nothing heavy: the impossible is refused at once."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from heliograph.pipeline.request import recipe
from heliograph.pipeline.request.errors import RequestError

ACCELERATOR = "ray.io/accelerator-type"
"""The label that Ray gives a node by its GPUs. Ray's resource of that purpose is known only once
such a node is there: an autoscaler on Kubernetes would never start one for it."""


@dataclass(frozen=True)
class Nodes:
    """Nodes of one kind: how many there are or, where the cluster grows by itself, can be.

    Args:
        labels: None: the machine that Ray starts on when no cluster is named, which is taken as it
            is.
    """

    count: int
    cpus: float
    gpus: float = 0.0
    labels: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Placement:
    """The training workers, what each of them gets: CPUs and, with `use_gpu`, one GPU; and the
    labels of the nodes for the workers and for the data tasks."""

    workers: int
    cpus_per_worker: float
    use_gpu: bool
    labels: Mapping[str, str] = field(default_factory=dict)
    data_labels: Mapping[str, str] = field(default_factory=dict)


def ray_address() -> str | None:
    """Of the cluster that RAY_ADDRESS names; None: it names none, as an empty one does.

    Raises:
        RequestError: it is of another kind.
    """
    address = os.environ.get("RAY_ADDRESS", "").strip()
    if address.startswith(("http://", "https://")):
        raise RequestError(
            f"RAY_ADDRESS {address!r} is a job server's, where `heliograph submit` sends jobs "
            "(--address, or RAY_API_SERVER_ADDRESS); valid: HEAD:6379 of a cluster to join, or none"
        )
    return None if address in ("", "local") else address


def check_here(cluster: recipe.Cluster) -> None:
    """Where Ray will start on this machine, judge the request before anything is loaded.

    Raises:
        RequestError: as `place`.
    """
    if ray_address() is None:
        gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))
        place(cluster, [Nodes(1, os.cpu_count() or 1, gpus)])


def place(cluster: recipe.Cluster, nodes: Sequence[Nodes]) -> Placement:
    """Where the workers go and what each of them gets; something is always left for the data.

    Ray waits for ever for resources that do not exist, and a pipeline whose workers took every CPU
    hangs with them, so both are refused here. Of an elastic job it is `min_workers` that must fit.

    Raises:
        RequestError: the cluster cannot hold the workers that the recipe asks for.
    """
    nodes = [each for each in nodes if each.count and each.cpus]
    labels, data_labels = _selectors(cluster, nodes)
    eligible = [each for each in nodes if matches(each.labels, labels)]
    least = cluster.min_workers or cluster.workers
    key = "workers" if cluster.min_workers is None else "min_workers"
    gpus = sum(each.count * each.gpus for each in eligible)
    use_gpu = gpus >= least if cluster.gpu is None else cluster.gpu
    if use_gpu and least > gpus:
        raise RequestError(
            f"cluster.{key}: {least} GPU workers, but the cluster has {gpus:g} GPUs"
            f"{_such(labels)}; valid: 1 to {gpus:g}, or cluster.gpu=false"
        )
    hosts = [each for each in eligible if each.gpus or not use_gpu]
    cpus = sum(each.count * each.cpus for each in hosts)
    if not use_gpu and least > cpus:
        raise RequestError(
            f"cluster.{key}: {least} workers, but the cluster has {cpus:g} CPUs"
            f"{_such(labels)}; valid: 1 to {math.floor(cpus)}"
        )
    elsewhere = sum(
        each.count * each.cpus
        for each in nodes
        if each not in hosts and each.cpus >= 1 and matches(each.labels, data_labels)
    )
    spare = cpus - (0 if elsewhere else min(1.0, cpus / 2))
    most = min(cluster.workers, math.floor(gpus)) if use_gpu else cluster.workers
    even = _even_share(spare, most, hosts, use_gpu)
    share = cluster.cpus_per_worker or (1.0 if use_gpu and elsewhere < most else even)
    if least * share > spare and not elsewhere:
        raise RequestError(
            f"cluster.cpus_per_worker: {least} workers × {share:g} CPUs leave nothing of the "
            f"cluster's {cpus:g} for the data; valid: at most {even:g}"
        )
    if _room(share, hosts, use_gpu) < least:
        raise RequestError(
            f"cluster.cpus_per_worker: no room for {least} workers with {share:g} CPUs each on "
            f"nodes of at most {max(each.cpus for each in hosts):g}; valid: at most {even:g}"
        )
    return Placement(cluster.workers, share, use_gpu, labels, data_labels)


def idle_workers(batches: recipe.Batches, workers: int) -> str | None:
    """What to tell before a job starts whose steps cannot keep all workers at work."""
    budget, step = batches.tokens_per_micro_batch, batches.tokens_per_step
    if (count := step // budget) >= workers:
        return None
    return (
        f"of {workers} workers {workers - count} have nothing to do at each step: "
        f"batches.tokens_per_step {step} is {count} micro-batches of {budget} tokens. For all to "
        f"work: batches.tokens_per_micro_batch at most {step // workers}, "
        f"batches.tokens_per_step at least {workers * budget}, or cluster.workers {count}"
    )


@dataclass(frozen=True)
class Pool:
    """Actors that translate: at most so many, and what each of them gets."""

    actors: int
    cpus: float
    gpus: float


def place_pool(nodes: Sequence[Nodes], most_cpus: int = 1) -> Pool:
    """An actor for each GPU; where there is none, for each CPU, or for up to `most_cpus` of a node.

    They may take every CPU: what reads for them must ask for none, so that it never waits for them.

    Raises:
        RequestError: the cluster has neither.
    """
    gpus = sum(each.count * each.gpus for each in nodes)
    if gpus >= 1:
        actors = math.floor(gpus)
        # A whole CPU beside it only where that cannot leave a GPU idle.
        spare = sum(each.count * each.cpus for each in nodes) >= 2 * actors
        return Pool(actors, 1.0 if spare else 0.0, 1.0)
    hosts = [each for each in nodes if each.count and each.cpus]
    if not hosts:
        raise RequestError("the cluster has neither CPUs nor GPUs to translate with")
    shares = [*map(float, range(1, most_cpus + 1)), min(1.0, max(each.cpus for each in hosts))]
    rooms = {share: _room(share, hosts, use_gpu=False) for share in shares}
    # The one that takes the most CPUs; among those the largest, for the fewest copies of the model.
    share = max(shares, key=lambda share: (share * rooms[share], share))
    return Pool(rooms[share], share, 0.0)


def matches(labels: Mapping[str, str] | None, selector: Mapping[str, str]) -> bool:
    """Whether a selector means a node with these labels, as Ray decides it: a value, or in(a, b),
    and either with a ! before it, which a node without that label satisfies."""
    if labels is None:
        return True
    for key, condition in selector.items():
        wanted = condition.removeprefix("!")
        if wanted.startswith("in("):
            values = [value.strip() for value in wanted[len("in(") : -1].split(",")]
        else:
            values = [wanted]
        if (labels.get(key) in values) == condition.startswith("!"):
            return False
    return True


def _selectors(
    cluster: recipe.Cluster, nodes: Sequence[Nodes]
) -> tuple[dict[str, str], dict[str, str]]:
    """What is asked of the workers' nodes and of those for the data, after a look that there are
    such nodes."""
    if all(each.labels is None for each in nodes):
        return {}, {}
    accelerator = {ACCELERATOR: cluster.accelerator} if cluster.accelerator else {}
    labels = accelerator | cluster.labels
    for key, selector in (
        ("accelerator", accelerator),
        ("labels", labels),
        ("data_labels", cluster.data_labels),
    ):
        if not any(matches(each.labels, selector) for each in nodes):
            raise RequestError(
                f"cluster.{key}: no node has {_words(selector)}; the cluster's nodes have "
                f"{_labels_of(nodes, selector)}"
            )
    return labels, dict(cluster.data_labels)


def _labels_of(nodes: Sequence[Nodes], keys: Iterable[str]) -> str:
    """The values that the nodes have for these labels, in words."""
    found = {f"{key}={(each.labels or {}).get(key, 'nothing')}" for key in keys for each in nodes}
    return ", ".join(sorted(found))


def _words(selector: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in selector.items())


def _such(labels: Mapping[str, str]) -> str:
    return f" on nodes with {_words(labels)}" if labels else ""


def _even_share(cpus: float, workers: int, hosts: Sequence[Nodes], use_gpu: bool) -> float:
    """An even share of the CPUs, in steps of a tenth; less where the nodes are too small for so
    many workers of that size, and beside GPUs no more than a node has for each of them."""
    share = cpus / workers
    if use_gpu:
        share = min([share, *(each.cpus / each.gpus for each in hosts)])
    tenths = math.floor(share) * 10 if share >= 1 else math.floor(share * 10)
    while tenths > 1 and _room(tenths / 10, hosts, use_gpu) < workers:
        tenths -= 10 if tenths > 10 else 1
    return max(tenths, 1) / 10


def _room(share: float, hosts: Sequence[Nodes], use_gpu: bool) -> int:
    """For how many workers of so many CPUs, and a GPU, the nodes have room."""
    fit = [(each, math.floor(each.cpus / share + 1e-9)) for each in hosts]
    return sum(each.count * (min(n, math.floor(each.gpus)) if use_gpu else n) for each, n in fit)
