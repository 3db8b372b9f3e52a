"""Which weights a finished job ends with."""

import math
from pathlib import Path

import pytest

from heliograph.pipeline.checkpoints.training_state import TrainingState, Validation
from heliograph.pipeline.job.finish import best_weights
from heliograph.pipeline.request.errors import JobStopped
from heliograph.pipeline.tracking.events import read_events
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
