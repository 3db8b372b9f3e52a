"""Losses and norms that are read late come to the same as those that are read at once."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from heliograph.pipeline.checkpoints.training_state import Meter, TrainingState
from heliograph.pipeline.request.errors import JobStopped
from heliograph.pipeline.steps.batches import MicroBatch, Step
from heliograph.pipeline.steps.windows import Position
from heliograph.pipeline.training.tally import Tally

SHAPES = (2, 5), (2, 4), (2, 4)
STEP = Step(
    position=Position(0, 3, 1),
    next_position=Position(0, 3, 2),
    steps_in_window=9,
    windows_in_epoch=9,
    target_tokens=7,
    micro_batches=[MicroBatch(*map(torch.ones, SHAPES), pairs=np.array([40, 41]), padded=False)],
    too_many_tokens=0,
)
NORMS = st.lists(st.sampled_from([0.5, 2.0, math.inf, math.nan]), min_size=1, max_size=30)


def outcome(norms: list[float], looks: set[int]) -> tuple[object, ...]:
    """After a look behind each of these steps and the last one: meter, state, or why it ended."""
    tally, meter, state = Tally(max_skipped=3), Meter(), TrainingState()
    try:
        for number, norm in enumerate(norms, start=1):
            tally.add(number, STEP, torch.tensor(float(number)), torch.tensor(norm))
            if number in looks:
                state = tally.read(meter, state)
        state = tally.read(meter, state)
    except JobStopped as error:
        return (str(error),)
    return vars(meter), state, repr(tally.norm)


@given(NORMS, st.sets(st.integers(1, 30)))
def test_when_they_are_read_does_not_matter(norms: list[float], looks: set[int]) -> None:
    assert outcome(norms, looks) == outcome(norms, set(range(31)))


def test_skipped_steps_are_counted_and_leave_no_loss() -> None:
    tally, meter, state = Tally(max_skipped=1), Meter(), TrainingState()
    for number, norm in enumerate([1.0, math.nan, 2.0, math.inf], start=1):
        tally.add(number, STEP, torch.tensor(float(number)), torch.tensor(norm))
    state = tally.read(meter, state)
    assert (meter.loss, meter.target_tokens, meter.skipped) == (4.0, 14, 2)
    assert state.skipped_in_a_row == 1
    tally.add(5, STEP, torch.tensor(5.0), torch.tensor(math.inf))
    said = r"step 5 is inf, and 2 steps in a row .*2 pairs of 5 source and 4 target .*number 40"
    with pytest.raises(JobStopped, match=said):
        tally.read(meter, state)
