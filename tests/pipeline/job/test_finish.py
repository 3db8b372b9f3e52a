"""Which weights a finished job ends with."""

import math
from pathlib import Path

import pytest
import ray
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from heliograph.pipeline.checkpoints.training_state import TrainingState, Validation
from heliograph.pipeline.job.finish import best_weights
from heliograph.pipeline.request.errors import JobStopped
from heliograph.pipeline.tracking.events import read_events
from heliograph.pipeline.tracking.server import is_away
from heliograph.pipeline.training.plan import TrainingPlan
from tests.pipeline.plans import plan_without_data
from tests.pipeline.saving import writer


@pytest.fixture
def plan(tmp_path: Path) -> TrainingPlan:
    """Of a job whose checkpoints are of BLEU 10 at step 1, 30 at 2 and 20 at 3."""
    plan = plan_without_data(tmp_path)
    for step, bleu in ((1, 10.0), (2, 30.0), (3, 20.0)):
        plan.checkpoints.save(step, writer(step, bleu))
    return plan


def damage(plan: TrainingPlan, step: int) -> None:
    path = Path(plan.folder, "checkpoints", f"step-{step:08d}", "model.safetensors")
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def test_the_best_checkpoint(plan: TrainingPlan) -> None:
    assert best_weights(plan, TrainingState(step=3)).step == 2


def test_the_average_where_it_was_kept(plan: TrainingPlan) -> None:
    plan.averages.save(3, writer(3, 31.0))
    best = best_weights(plan, TrainingState(step=3))
    assert (best.store, best.step) == (f"{plan.folder}/averages", 3)


def test_the_next_best_where_the_best_is_damaged_and_that_is_said(
    plan: TrainingPlan, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(plan, 2)
    assert best_weights(plan, TrainingState(step=3)).step == 3
    said = "the weights of step 2 are damaged, the next best are used (model.safetensors differs"
    assert said in capsys.readouterr().err
    (event,) = read_events(plan.events)
    assert event.kind == "damaged"
    assert said in event.message


def test_none_where_all_are_damaged(plan: TrainingPlan) -> None:
    for step in (1, 2, 3):
        damage(plan, step)
    with pytest.raises(JobStopped, match=r"no sound checkpoint with a score .* --new"):
        best_weights(plan, TrainingState(step=3))


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_what_has_no_loss_is_not_registered(plan: TrainingPlan, loss: float) -> None:
    """A short job whose loss exploded registered a model of NaN (issue 15, 7)."""
    state = TrainingState(step=3).with_validation(Validation(3, loss, 0.0, 0.0))
    with pytest.raises(JobStopped, match=rf"is {loss} at step 3.* no model is registered"):
        best_weights(plan, state)


def test_a_server_that_goes_away_while_a_job_is_finished_is_known_for_that(
    ray_cluster: None,
) -> None:
    """What the task raises comes wrapped by Ray; it is done again as if it were not."""

    @ray.remote
    def lose() -> None:
        raise MlflowException("Max retries exceeded")

    @ray.remote
    def refuse() -> None:
        raise MlflowException("no", error_code=INVALID_PARAMETER_VALUE)

    with pytest.raises(MlflowException) as lost:
        ray.get(lose.remote())
    assert is_away(lost.value)
    with pytest.raises(MlflowException) as refused:
        ray.get(refuse.remote())
    assert not is_away(refused.value)
