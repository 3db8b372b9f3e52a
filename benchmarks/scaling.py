"""How far training scales: measured for 1 and 2 workers, modelled to 64 nodes of 8 GPUs.

    python benchmarks/scaling.py               # about five minutes on two cores
    python benchmarks/scaling.py --model-only  # of the control plane guesses instead of figures

Three parts, and the output says which is which:

measured       a step on 1 and 2 workers of this machine (one thread each, gloo), weak and strong;
               the gradients' share of it by bucket size and by compression (benchmarks/ranks.py)
control plane  the parts of Heliograph and Ray that 512 ranks share, under the load of 512 simulated
               ones (benchmarks/control_plane.py says what is simulated and what is real)
model          NOT measured: what the sizes, published link speeds and the two parts above lead to
"""

import argparse
import json
import math
import os
import sys
from dataclasses import asdict, dataclass

if __package__ in (None, ""):  # Run as a file: the repository's root is not on the path.
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    os.environ["PYTHONPATH"] = sys.path[0]

from benchmarks.control_plane import ControlPlane, measure_control_plane
from benchmarks.ranks import measure_ranks

GPUS_PER_NODE = 8

# Bytes a second and direction. NVLink: "NVIDIA A100 Tensor Core GPU" datasheet, 600 GB/s for both
# directions together. Network: "Amazon EC2 P4 Instances", p4d.24xlarge, 400 Gbit/s a node, which
# its 8 GPUs share; 25 Gbit/s is a node without a fabric for GPUs.
NVLINK = 300e9
FABRIC = 400e9 / 8
ETHERNET = 25e9 / 8
# What of a link a collective gets; NCCL's own nccl-tests report 75 to 90 % on large messages.
LINK_SHARE = 0.8
# Seconds for one hop of a ring, within a node and between two: the order that nccl-tests report for
# the smallest messages.
LATENCY_INSIDE, LATENCY_BETWEEN = 5e-6, 25e-6
# FLOP/s in bfloat16, without sparsity: the same A100 datasheet. What of it is reached is assumed:
# give --gpu-share what benchmarks/train.py measured.
PEAK = 312e12
# Bytes a second from GPU to host memory: PCIe 4.0 x16, 32 GB/s by the PCI-SIG's specification.
PCI_EXPRESS = 32e9


@dataclass(frozen=True)
class Job:
    """What is scaled: recipes/base.yaml, the base model of the paper."""

    parameters: float = 63e6
    """6+6 layers of width 512, and a shared vocabulary of 37,000."""
    tokens_per_gpu: int = 4096
    """Positions of the larger side, of each GPU and step."""
    tokens_per_pair: float = 30.0
    bucket_bytes: float = 25 * 2**20
    """DDP's default."""
    checkpoint_steps: int = 1000
    metrics_per_step: int = 9
    steps_per_row: int = 8
    """Of the stream: heliograph.pipeline.steps.portions.STEPS_PER_PORTION."""
    gpu_share: float = 0.35
    """Of the peak, that computing reaches."""
    cpu_pairs: float = 9000.0
    """That a core tokenizes and cuts in a second: benchmarks/data.py."""
    cores_per_node: int = 32
    """Of the CPU nodes that do it."""


@dataclass(frozen=True)
class Estimate:
    """Of one size of cluster; seconds are of one step."""

    nodes: int
    gpus: int
    compute: float
    gradients: float
    """The all-reduce by itself."""
    sync: float
    """What of it backward does not hide."""
    imbalance: float
    """Waiting for the rank with the largest share."""
    checkpoint: float
    step: float
    efficiency: float
    """Of as many times one GPU."""
    tokens_per_second: float
    data_cpu_nodes: float
    """To keep up; a machine's worth of cores each."""
    dealing: float
    """Share of what Ray's one dealer of rows manages that this asks for."""
    metrics: float
    """The same of the metric log."""
    polling: float
    """Share of a second that the controller spends asking each worker five times a second."""
    bottleneck: str


def all_reduce(size: float, nodes: int, gpus_per_node: int, network: float) -> float:
    """Seconds: reduce-scatter within each node, a ring over the nodes for each GPU's part (they
    share the node's network), all-gather within. One node: a ring over NVLink.

    Args:
        size: bytes.
        network: bytes a second that a node has.
    """
    local, between = gpus_per_node, nodes
    inside = 2 * (local - 1) / local * size / (NVLINK * LINK_SHARE) if local > 1 else 0.0
    inside += 2 * (local - 1) * LATENCY_INSIDE
    outside = 2 * (between - 1) / between * size / (network * LINK_SHARE) if between > 1 else 0.0
    outside += 2 * (between - 1) * LATENCY_BETWEEN
    return inside + outside


def estimate(job: Job, nodes: int, gpus: int, network: float, plane: ControlPlane) -> Estimate:
    """The model. Its parts add up; nothing is hidden but what is said to be."""
    flops = 6 * job.parameters * job.tokens_per_gpu  # each parameter sees one of the sides
    compute = flops / (PEAK * job.gpu_share)
    backward = compute * 2 / 3
    size = 4 * job.parameters  # gradients are float32 under autocast
    buckets = max(1, math.ceil(size / job.bucket_bytes))
    local = min(gpus, GPUS_PER_NODE)
    whole = all_reduce(size / buckets, nodes, local, network) * buckets if gpus > 1 else 0.0
    # The last bucket is ready when backward ends; the others travel meanwhile, one after another.
    sync = max(whole / buckets, whole - backward * (buckets - 1) / buckets) if gpus > 1 else 0.0
    imbalance = compute * plane.imbalance(gpus)
    checkpoint = 3 * size / PCI_EXPRESS / job.checkpoint_steps
    step = compute + sync + imbalance + checkpoint
    pairs = gpus * job.tokens_per_gpu / job.tokens_per_pair / step
    cpu_nodes = pairs / (job.cpu_pairs * job.cores_per_node)
    shares = {
        "the dealing of rows": gpus / job.steps_per_row / step / plane.rows_per_second,
        "the metric log": job.metrics_per_step / step / plane.metrics_per_second,
        "the polling of workers": gpus * 5 / plane.polls_per_second,
    }
    losses = {"gradients": sync, "uneven shares": imbalance, "checkpoints": checkpoint}
    worst = max(losses, key=lambda name: losses[name])
    bottleneck = worst if losses[worst] > 0.02 * step else "computing"
    over = [name for name, share in shares.items() if share > 1]
    dealing, metrics, polling = shares.values()
    return Estimate(
        nodes, gpus, compute, whole, sync, imbalance, checkpoint, step, compute / step,
        gpus * job.tokens_per_gpu / step, cpu_nodes, dealing, metrics, polling,
        " and ".join(over) or bottleneck,
    )  # fmt: skip


def model(job: Job, network: float, plane: ControlPlane) -> list[Estimate]:
    sizes = [(1, 1), (1, 2), (1, 4), *((nodes, nodes * 8) for nodes in (1, 2, 4, 8, 16, 32, 64))]
    return [estimate(job, nodes, gpus, network, plane) for nodes, gpus in sizes]


def print_model(estimates: list[Estimate], title: str) -> None:
    print(f"\nMODEL, not measured: {title}")
    print(
        "nodes gpus   step ms  compute   sync  uneven  efficiency  tokens/s  data nodes  dealing"
        "  metrics  polling  bottleneck"
    )
    for each in estimates:
        print(
            f"{each.nodes:5} {each.gpus:4} {each.step * 1e3:9.1f} {each.compute * 1e3:8.1f}"
            f" {each.sync * 1e3:6.1f} {each.imbalance * 1e3:7.1f} {each.efficiency:11.0%}"
            f" {each.tokens_per_second / 1e6:7.2f} M {each.data_cpu_nodes:11.2f}"
            f" {each.dealing:8.0%} {each.metrics:8.0%} {each.polling:8.0%}  {each.bottleneck}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=12, help="of each measurement")
    parser.add_argument("--model-only", action="store_true")
    parser.add_argument("--gpu-share", type=float, default=Job.gpu_share)
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    options = parser.parse_args()
    plane, ranks = ControlPlane(), None
    if options.model_only:
        print("the control plane's figures are GUESSES, not measured")
    else:
        ranks = measure_ranks(options.steps)
        plane = measure_control_plane()
        print("\nCONTROL PLANE, measured here against 512 simulated ranks")
        for name, value in asdict(plane).items():
            print(f"  {name:24} {value}")
    job = Job(gpu_share=options.gpu_share)
    tables = {
        "400 Gbit/s a node": model(job, FABRIC, plane),
        "25 Gbit/s a node": model(job, ETHERNET, plane),
    }
    for title, table in tables.items():
        print_model(table, title)
    if options.json:
        result = {name: [asdict(each) for each in table] for name, table in tables.items()}
        print(json.dumps({"measured": ranks, "plane": asdict(plane), "model": result}))


if __name__ == "__main__":
    main()
