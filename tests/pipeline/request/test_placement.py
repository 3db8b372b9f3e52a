"""What a job may ask of a cluster: refused before Ray would wait for ever."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.train import ScalingConfig

from heliograph.pipeline.cluster.start import GROWS_TO, capacity
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.request.placement import (
    ACCELERATOR,
    Nodes,
    Placement,
    Pool,
    idle_workers,
    matches,
    place,
    place_pool,
)
from heliograph.pipeline.request.recipe import Batches, Cluster

ROOT = Path(__file__).parents[3]


def cpu_nodes(*cpus: float) -> list[Nodes]:
    return [Nodes(1, each) for each in cpus]


L4 = Nodes(8, cpus=8, gpus=1, labels={ACCELERATOR: "L4", "market": "spot"})
H100 = Nodes(2, cpus=64, gpus=8, labels={ACCELERATOR: "H100", "market": "on-demand"})
DATA = Nodes(4, cpus=16, labels={"role": "data"})


@pytest.mark.parametrize(
    ("cpus", "workers", "share"),
    [(2, 1, 1), (2, 2, 0.5), (1, 1, 0.5), (8, 2, 3), (8, 4, 1), (8, 7, 1), (64, 8, 7), (4, 4, 0.7)],
)
def test_cpu_workers_leave_a_cpu_for_the_data(cpus: int, workers: int, share: float) -> None:
    assert place(Cluster(workers=workers), cpu_nodes(cpus)) == Placement(workers, share, False)
    assert cpus - workers * share >= min(1, cpus / 2)


@pytest.mark.parametrize(
    ("nodes", "workers", "share"),
    [([1, 2, 2], 2, 2), ([1, 2, 2, 2], 2, 2), ([2] * 8, 3, 2), ([1, 1, 1], 3, 0.6), ([1, 8], 4, 2)],
)
def test_a_worker_asks_for_no_more_than_a_node_has(
    nodes: list[float], workers: int, share: float
) -> None:
    assert place(Cluster(workers=workers), cpu_nodes(*nodes)).cpus_per_worker == share


def test_gpus_are_used_where_there_are_enough() -> None:
    assert place(Cluster(workers=4), [Nodes(1, 32, 4)]).use_gpu
    assert not place(Cluster(workers=4), [Nodes(1, 32, 3)]).use_gpu
    assert not place(Cluster(workers=4, gpu=False), [Nodes(1, 32, 4)]).use_gpu


@pytest.mark.parametrize(
    ("nodes", "workers", "share"),
    [
        ([L4, DATA], 8, 8),  # the data go to their own nodes
        ([H100, DATA], 16, 8),
        ([L4], 8, 1),  # and here they share the workers'
        ([L4, Nodes(1, cpus=4, labels={})], 8, 1),  # four CPUs do not feed eight GPUs
    ],
)
def test_data_tasks_are_kept_off_the_cores_of_training(
    nodes: list[Nodes], workers: int, share: float
) -> None:
    """What a worker holds, Ray gives to no task."""
    assert place(Cluster(workers=workers), nodes) == Placement(workers, share, True)


def test_a_worker_may_have_its_node_s_cpus_where_others_do_the_data() -> None:
    assert place(Cluster(workers=8, cpus_per_worker=8), [L4, DATA]).cpus_per_worker == 8
    with pytest.raises(RequestError, match=r"8 workers × 8 CPUs leave nothing .*valid: at most 7$"):
        place(Cluster(workers=8, cpus_per_worker=8), [L4])


def test_of_an_elastic_job_the_fewest_must_fit() -> None:
    four = [Nodes(4, cpus=8, gpus=1), DATA]
    placement = place(Cluster(min_workers=2, workers=8), four)
    assert placement == Placement(8, 8, use_gpu=True)
    with pytest.raises(RequestError, match=r"cluster\.min_workers: 5 GPU workers.* 4 GPUs"):
        place(Cluster(min_workers=5, workers=8, gpu=True), four)


def test_workers_that_would_have_nothing_to_do_are_named_with_what_would_help() -> None:
    """The paper's batch on eight GPUs (issue 15, 3)."""
    batches = Batches(tokens_per_micro_batch=4096, tokens_per_step=25_000)
    said = idle_workers(batches, workers=8)
    assert said is not None
    assert "of 8 workers 2 have nothing to do" in said
    for changes in ({"tokens_per_micro_batch": 3125}, {"tokens_per_step": 32_768}):
        (key, value), *_ = changes.items()
        assert re.search(rf"batches\.{key} at \w+ {value}\b", said)
        assert idle_workers(batches.model_copy(update=changes), workers=8) is None
    assert said.endswith("or cluster.workers 6")
    assert idle_workers(batches, workers=6) is None


def test_workers_go_to_the_nodes_that_are_asked_for() -> None:
    placement = place(Cluster(workers=16, accelerator="H100"), [L4, H100, DATA])
    assert placement == Placement(16, 8, True, {ACCELERATOR: "H100"})
    spot = place(Cluster(workers=8, labels={"market": "!on-demand"}), [L4, H100, DATA])
    assert spot.labels == {"market": "!on-demand"}
    ScalingConfig(num_workers=8, label_selector=dict(spot.labels))


def test_the_machine_here_is_taken_as_it_is() -> None:
    """The recipe of a cluster also runs on a laptop: there is nothing to choose from."""
    chosen = Cluster(accelerator="H100", labels={"market": "spot"}, data_labels={"role": "data"})
    assert place(chosen, [Nodes(1, cpus=2)]) == Placement(1, 1, False)


@pytest.mark.parametrize(
    ("cluster", "nodes", "message"),
    [
        (Cluster(workers=3), cpu_nodes(2), r"workers: 3 workers.* 2 CPUs; valid: 1 to 2"),
        (Cluster(workers=2, gpu=True), [Nodes(1, 8, 1)], r"workers: 2 GPU workers.* 1 GPUs"),
        (Cluster(workers=2, cpus_per_worker=1), cpu_nodes(2), r"cpus_per_worker: 2 workers × 1"),
        (Cluster(workers=8), [Nodes(1, 8, 8)], r"8 workers × 1 CPUs leave nothing.*at most 0\.8"),
        (
            Cluster(workers=2, cpus_per_worker=3),
            cpu_nodes(2, 2, 2, 2, 2),
            r"2 workers with 3 CPUs .*at most 2; valid: at most 2",
        ),
        # The four CPUs beside eight GPUs are too few, although the cluster has enough of them.
        (
            Cluster(workers=8, cpus_per_worker=1),
            [Nodes(1, 4, 8), Nodes(1, 64)],
            r"no room for 8 workers with 1 CPUs .* nodes of at most 4; valid: at most 0\.5",
        ),
        (
            Cluster(workers=9, gpu=True, accelerator="L4"),
            [L4, H100, DATA],
            r"9 GPU workers, but the cluster has 8 GPUs on nodes with ray\.io/accelerator-type=L4",
        ),
        (
            Cluster(accelerator="A100"),
            [L4, H100],
            r"cluster\.accelerator: no node has .*=A100; .* have .*=H100, .*=L4$",
        ),
        (
            Cluster(labels={"market": "reserved"}),
            [L4, DATA],
            r"cluster\.labels: no node has market=reserved; .* market=nothing, market=spot$",
        ),
        (Cluster(data_labels={"role": "data"}), [L4], r"data_labels: .* have role=nothing$"),
    ],
)
def test_the_impossible_is_refused_with_what_the_cluster_has(
    cluster: Cluster, nodes: list[Nodes], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        place(cluster, nodes)


@pytest.mark.parametrize("value", ["", "-spot", "in()", "in(a,", "!!spot", "a b"])
def test_a_label_that_ray_would_not_take_is_a_mistake(value: str) -> None:
    with pytest.raises(ValueError, match="labels"):
        Cluster(labels={"market": value})


@pytest.mark.parametrize(
    ("condition", "met_by"),
    [
        ("a", ["a"]),
        ("!a", ["b", None]),
        ("in(a, b)", ["a", "b"]),
        ("!in(a,c)", ["b", None]),
    ],
)
def test_labels_match_as_ray_matches_them(condition: str, met_by: list[str | None]) -> None:
    for value in ("a", "b", None):
        labels = {} if value is None else {"zone": value}
        assert matches(labels, {"zone": condition}) == (value in met_by)


NODES = st.builds(
    Nodes,
    count=st.integers(0, 8),
    cpus=st.integers(0, 32).map(float),
    gpus=st.integers(0, 8).map(float),
    labels=st.sampled_from([{}, {"role": "data"}]),
)


@given(
    nodes=st.lists(NODES, max_size=4),
    workers=st.integers(1, 40),
    share=st.none() | st.sampled_from([0.1, 0.5, 1.0, 4.0]),
    data_labels=st.sampled_from([{}, {"role": "data"}]),
)
def test_what_is_granted_fits_and_leaves_room_for_the_data(
    nodes: list[Nodes], workers: int, share: float | None, data_labels: dict[str, str]
) -> None:
    """No recipe makes workers take every CPU that a data task may have."""
    asked: dict[str, Any] = {"cpus_per_worker": share, "data_labels": data_labels}
    try:
        placement = place(Cluster(workers=workers, **asked), nodes)
    except RequestError:
        return
    hosts = [each for each in nodes if each.gpus or not placement.use_gpu]
    fit = [
        (each, int(each.cpus / placement.cpus_per_worker + 1e-9), int(each.gpus)) for each in hosts
    ]
    room = [each.count * (min(n, gpus) if placement.use_gpu else n) for each, n, gpus in fit]
    assert sum(room) >= workers
    taken = workers * placement.cpus_per_worker
    total = sum(each.count * each.cpus for each in nodes)
    assert total - taken >= min(1.0, total / 2) - 1e-6


def test_a_cluster_that_grows_is_judged_by_what_it_can_become(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Before any of its workers is there: cluster.yaml says how far it goes."""
    monkeypatch.setenv(GROWS_TO, str(ROOT / "cluster.yaml"))
    placement = place(Cluster(workers=16), capacity())
    assert placement == Placement(16, 8, use_gpu=True)
    with pytest.raises(RequestError, match=r"17 GPU workers, but the cluster has 16 GPUs"):
        place(Cluster(workers=17, gpu=True), capacity())
    on_demand = Cluster(workers=9, gpu=True, labels={"market": "on-demand"})
    with pytest.raises(RequestError, match=r"8 GPUs on nodes with market=on-demand"):
        place(on_demand, capacity())

    (tmp_path / "other.yaml").write_text("workers: 3")
    for path in ("other.yaml", "absent.yaml"):
        monkeypatch.setenv(GROWS_TO, str(tmp_path / path))
        with pytest.raises(RequestError, match=rf"HELIOGRAPH_CLUSTER: .*{path}"):
            capacity()


@pytest.mark.parametrize(
    ("nodes", "pool"),
    [
        (cpu_nodes(2), Pool(2, 1.0, 0.0)),  # all of them: reading asks for none
        (cpu_nodes(1), Pool(1, 1.0, 0.0)),
        (cpu_nodes(0.5), Pool(1, 0.5, 0.0)),
        (cpu_nodes(0, 1.5, 1.5), Pool(2, 1.0, 0.0)),  # an actor needs its CPU on one node
        ([Nodes(1, 64, 8)], Pool(8, 1.0, 1.0)),
        ([Nodes(1, 4, 4)], Pool(4, 0.0, 1.0)),  # no GPU idles for want of a CPU
    ],
)
def test_actors_take_every_gpu_or_else_every_cpu(nodes: list[Nodes], pool: Pool) -> None:
    assert place_pool(nodes) == pool


@pytest.mark.parametrize(
    ("nodes", "pool"),
    [
        (cpu_nodes(2), Pool(1, 2.0, 0.0)),
        (cpu_nodes(1), Pool(1, 1.0, 0.0)),
        (cpu_nodes(0.5), Pool(1, 0.5, 0.0)),
        (cpu_nodes(16, 16), Pool(8, 4.0, 0.0)),
        (cpu_nodes(4, 6), Pool(5, 2.0, 0.0)),  # with four each, two CPUs would idle
        (cpu_nodes(3, 3), Pool(2, 3.0, 0.0)),
        ([Nodes(1, 64, 8)], Pool(8, 1.0, 1.0)),
    ],
)
def test_an_actor_takes_several_cpus_where_that_leaves_none_idle(
    nodes: list[Nodes], pool: Pool
) -> None:
    assert place_pool(nodes, most_cpus=4) == pool


def test_a_cluster_of_nothing_cannot_translate() -> None:
    with pytest.raises(RequestError, match="neither CPUs nor GPUs"):
        place_pool(cpu_nodes(0))
