"""The alias `champion` moved past the gate: what is said, and each way on."""

import pytest

from heliograph.pipeline.promotion.promote import history, promote, rollback
from heliograph.pipeline.request.errors import RequestError
from tests.pipeline.conftest import MakeModel
from tests.pipeline.model_store import Store


def test_an_alias_that_was_moved_by_hand(store: Store, make_model: MakeModel) -> None:
    for known in (2, 4, 6):
        store.register(make_model(1, known))
    promote("tiny", version=1)
    store.client.set_registered_model_alias("tiny", "champion", "2")
    with pytest.raises(RequestError, match=r"moved to version 2 by hand.*--version 1`.*--force"):
        promote("tiny", version=3)
    assert len(history("tiny")) == 1
    assert rollback("tiny", version=1).previous == 2
    assert store.alias("champion") == 1
    store.client.set_registered_model_alias("tiny", "champion", "2")
    with pytest.raises(RequestError, match="by hand"):
        rollback("tiny")
    assert promote("tiny", version=3, force="as it is").previous == 2
    store.client.delete_registered_model_alias("tiny", "champion")
    with pytest.raises(RequestError, match="was removed by hand"):
        promote("tiny", version=1)
    assert rollback("tiny", version=3).champion == 3
    assert store.alias("champion") == 3


@pytest.mark.parametrize("way", ["force", "rollback"])
def test_where_it_was_moved_by_hand_can_be_confirmed(
    store: Store, make_model: MakeModel, way: str
) -> None:
    store.register_like(make_model(1), 2)
    promote("tiny", version=1)
    store.client.set_registered_model_alias("tiny", "champion", "2")
    if way == "force":
        decision = promote("tiny", version=2, force="as it is")
    else:
        decision = rollback("tiny", version=2)
    assert (decision.promoted, decision.champion, decision.previous) == (True, 2, 1)
    assert history("tiny")[-1].kind == way
    assert store.alias("champion") == 2
    assert "is the champion already" in promote("tiny", version=2).reason
