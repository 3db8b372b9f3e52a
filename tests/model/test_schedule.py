import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliograph.model import inverse_square_root

steps = st.integers(1, 1_000_000)


@given(step=steps, width=st.integers(1, 4096), warmup_steps=st.integers(1, 100_000))
def test_is_equation_3(step: int, width: int, warmup_steps: int) -> None:
    equation_3 = width**-0.5 * min(step**-0.5, step * warmup_steps**-1.5)
    assert inverse_square_root(step, width, warmup_steps) == pytest.approx(equation_3, rel=1e-12)


def test_values_worked_out_by_hand() -> None:
    # width 256, warm-up 400: 1/16 · step / 8000, then 1/16 / √step.
    rates = [inverse_square_root(step, 256, 400) for step in (1, 200, 400, 1600)]
    assert rates == pytest.approx([1 / 128_000, 1 / 640, 1 / 320, 1 / 640], rel=1e-12)


@given(step=steps, peak=st.floats(1e-6, 1.0), warmup_steps=st.integers(1, 100_000))
def test_peak_is_reached_at_the_end_of_warm_up(step: int, peak: float, warmup_steps: int) -> None:
    assert inverse_square_root(warmup_steps, 512, warmup_steps, peak) == pytest.approx(peak)
    assert 0 < inverse_square_root(step, 512, warmup_steps, peak) <= peak * (1 + 1e-12)


def test_steps_count_from_1() -> None:
    with pytest.raises(ValueError, match="step 0"):
        inverse_square_root(0, 512, 4000)
