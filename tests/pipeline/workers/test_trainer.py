"""What Ray Train is asked to start beside the workers."""

import pytest
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

from heliograph.pipeline.cluster.start import capacity
from heliograph.pipeline.request.placement import place
from heliograph.pipeline.request.recipe import Cluster
from heliograph.pipeline.training.plan import TrainingPlan
from heliograph.pipeline.workers.trainer import make_trainer


@pytest.mark.parametrize(
    ("address", "freed_by"), [("", []), ("127.0.0.1:6379", [PlacementGroupCleanerCallback])]
)
@pytest.mark.usefixtures("ray_cluster")
def test_places_are_freed_after_a_killed_controller_where_ray_goes_on(
    monkeypatch: pytest.MonkeyPatch,
    small_training: TrainingPlan,
    address: str,
    freed_by: list[type],
) -> None:
    cluster = Cluster(workers=1)
    trainer = make_trainer(small_training, place(cluster, capacity()), cluster, lambda: None)
    monkeypatch.setenv("RAY_ADDRESS", address)
    callbacks = [type(each) for each in trainer._create_default_callbacks()]
    assert [each for each in callbacks if each is PlacementGroupCleanerCallback] == freed_by
    assert len(callbacks) > 1, "Ray Train's others stay"
