"""How long the scheduler of the stream pauses; what it is for, `test_stream` shows."""

from hypothesis import given
from hypothesis import strategies as st

from heliograph.pipeline.steps.pacing import next_pause

PAUSES = st.floats(0.02, 0.64)


@given(PAUSES, st.booleans(), st.booleans(), st.integers(1, 500), st.integers(1, 500))
def test_it_looks_again_before_a_quarter_of_what_lies_ready_is_taken(
    pause: float, moved: bool, running: bool, ready: int, taken: int
) -> None:
    found = next_pause(pause, moved=moved, running=running, ready=ready, taken=taken)
    assert found <= max(0.02, pause * ready / taken / 4)  # at the pace of the pause before


@given(PAUSES, st.booleans(), st.booleans(), st.integers(0, 9), st.integers(0, 9))
def test_it_neither_spins_nor_sleeps(
    pause: float, moved: bool, running: bool, ready: int, taken: int
) -> None:
    found = next_pause(pause, moved=moved, running=running, ready=ready, taken=taken)
    assert 0.02 <= found <= (0.16 if running and not ready else 0.64)


@given(PAUSES, st.booleans())
def test_where_training_waits_for_rows_whatever_moves_is_followed_at_once(
    pause: float, running: bool
) -> None:
    assert next_pause(pause, moved=True, running=running, ready=0, taken=0) == 0.02
    assert next_pause(pause, moved=True, running=running, ready=0, taken=5) == 0.02


def test_where_nobody_takes_and_nothing_moves_it_looks_less_and_less_often() -> None:
    pauses = [0.02]
    for _ in range(7):
        pauses.append(next_pause(pauses[-1], moved=False, running=False, ready=9, taken=0))
    assert pauses == [0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 0.64, 0.64]
