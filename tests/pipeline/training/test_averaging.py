"""The mean is of the checkpoints that an undisturbed job takes, and is never left out."""

from dataclasses import replace
from pathlib import Path

import pytest

from heliograph.pipeline.checkpoints.training_state import TrainingState
from heliograph.pipeline.request import recipe
from heliograph.pipeline.training.averaging import is_averaged, mark_averaged, steps_to_average
from heliograph.pipeline.training.plan import TrainingPlan
from tests.pipeline.plans import plan_without_data
from tests.pipeline.saving import writer


@pytest.fixture
def plan(tmp_path: Path) -> TrainingPlan:
    """Of a job whose checkpoints are at multiples of 4 and of 10, and at the end."""
    return plan_without_data(
        tmp_path / "job",
        train=recipe.Train(steps=22, checkpoint_steps=4, average_checkpoints=3, keep_checkpoints=5),
        validation=recipe.Validation(every_steps=10),
    )


def test_what_an_interrupt_has_saved_is_not_among_them(plan: TrainingPlan) -> None:
    """A resumed job would differ from an undisturbed one (issue 15, 8)."""
    for step in (12, 16, 17, 20, 21, 22):
        plan.checkpoints.save(step, writer(step, 1.0))
    assert steps_to_average(plan, TrainingState(step=22)) == [16, 20, 22]
    assert steps_to_average(plan, TrainingState(step=21)) == [20, 21, 22][-3:]


def test_too_few_are_no_mean(plan: TrainingPlan) -> None:
    for step in (17, 20, 22):
        plan.checkpoints.save(step, writer(step, 1.0))
    assert steps_to_average(plan, TrainingState(step=22)) == []


def test_it_is_done_when_it_is_marked(plan: TrainingPlan) -> None:
    """A driver that was lost before would end with the unaveraged model (issue 15, 8)."""
    state = TrainingState(step=22)
    assert not is_averaged(plan, state)
    mark_averaged(plan, state)
    assert is_averaged(plan, state)
    assert not is_averaged(plan, TrainingState(step=23))
    unasked = plan.train.model_copy(update={"average_checkpoints": 0})
    assert is_averaged(replace(plan, train=unasked), TrainingState(step=23))
