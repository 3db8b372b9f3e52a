"""What a job may ask of a cluster: refused before Ray would wait for ever."""

import pytest

from pipeline.errors import RequestError
from pipeline.placement import Placement, place
from pipeline.recipe import Cluster


@pytest.mark.parametrize(
    ("cpus", "workers", "share"),
    [(2, 1, 1), (2, 2, 0.5), (1, 1, 0.5), (8, 2, 3), (8, 4, 1), (8, 7, 1), (64, 8, 7), (4, 4, 0.7)],
)
def test_cpu_workers_leave_a_cpu_for_the_data(cpus: int, workers: int, share: float) -> None:
    assert place(Cluster(workers=workers), cpus, gpus=0) == Placement(workers, share, False)
    assert cpus - workers * share >= min(1, cpus / 2)


def test_gpus_are_used_where_there_are_enough() -> None:
    assert place(Cluster(workers=4), cpus=32, gpus=4).use_gpu
    assert not place(Cluster(workers=4), cpus=32, gpus=3).use_gpu
    assert not place(Cluster(workers=4, gpu=False), cpus=32, gpus=4).use_gpu


@pytest.mark.parametrize(
    ("cluster", "cpus", "gpus", "message"),
    [
        (Cluster(workers=3), 2, 0, r"cluster\.workers: 3 workers.* 2 CPUs; valid: 1 to 2"),
        (Cluster(workers=2, gpu=True), 8, 1, r"cluster\.workers: 2 GPU workers.* 1 GPUs"),
        (Cluster(workers=2, cpus_per_worker=1), 2, 0, r"cluster\.cpus_per_worker: 2 workers × 1"),
        (Cluster(workers=8), 8, 8, r"cluster\.cpus_per_worker: 8 workers × 1 CPUs leave nothing"),
    ],
)
def test_the_impossible_is_refused_with_what_is_valid(
    cluster: Cluster, cpus: int, gpus: int, message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        place(cluster, cpus, gpus)
