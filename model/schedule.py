"""The learning rate: linear warm-up, then inverse square root decay (section 5.3)."""

import math


def inverse_square_root(
    step: int, width: int, warmup_steps: int, peak: float | None = None
) -> float:
    """The learning rate of a step, counted from 1: equation 3.

    With `peak`, the same curve scaled so that it reaches `peak` at `warmup_steps`; without, its
    highest value is (width · warmup_steps)^-0.5.

    Raises:
        ValueError: a step or warm-up before 1.
    """
    if step < 1 or warmup_steps < 1:
        raise ValueError(f"steps count from 1: step {step}, warmup_steps {warmup_steps}")
    if peak is None:
        peak = 1 / math.sqrt(width * warmup_steps)
    return peak * min(step / warmup_steps, math.sqrt(warmup_steps / step))
