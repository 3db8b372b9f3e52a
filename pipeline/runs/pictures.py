"""Pictures of a run: its curves, and where each head of the decoder looks in the source.

matplotlib is imported when something is drawn: importing it makes a folder in the user's home.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = Sequence[tuple[int, float]]


def draw_curves(curves: Mapping[str, Curve]) -> "Figure":
    """One panel per metric over optimizer steps.

    A curve of more than 500 points is drawn pale, with its running mean over a fiftieth of it.
    """
    from matplotlib.figure import Figure

    columns = 2
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(12, 3.2 * rows), layout="constrained")
    for number, (name, curve) in enumerate(curves.items(), start=1):
        axes = figure.add_subplot(rows, columns, number)
        steps, values = np.array(curve, dtype=float).T
        crowded = len(values) > 500
        axes.plot(
            steps, values, marker="" if len(values) > 50 else "o", alpha=0.3 if crowded else 1
        )
        if crowded:
            width = len(values) // 50
            mean = np.convolve(values, np.ones(width) / width, mode="valid")
            axes.plot(steps[width - 1 :], mean, color="C0")
        axes.set_title(name, fontsize=11, parse_math=False)
        axes.set_xlabel("optimizer step", fontsize=9)
        axes.grid(alpha=0.3)
    return figure


def draw_attention(
    title: str,
    source_tokens: Sequence[str],
    target_tokens: Sequence[str],
    weights: NDArray[np.float32],
) -> "Figure":
    """One decoder layer's cross-attention, a panel a head.

    Text is drawn as it is: between two dollar signs matplotlib would read mathematics.

    Args:
        source_tokens: S of them, along the horizontal axis.
        target_tokens: T of them, the tokens being produced, down the vertical axis.
        weights: [H, T, S], each row summing to one.
    """
    from matplotlib.figure import Figure

    heads, targets, sources = weights.shape
    columns = min(heads, 2)  # a page of the tracking server is no wider than two
    rows = -(-heads // columns)
    # A quarter of an inch a token keeps the labels readable whatever the lengths.
    panel = (max(3.0, 0.28 * sources + 1.2), max(2.6, 0.25 * targets + 1.2))
    figure = Figure(figsize=(panel[0] * columns, panel[1] * rows), layout="constrained")
    for head in range(heads):
        axes = figure.add_subplot(rows, columns, head + 1)
        _draw_head(axes, weights[head], source_tokens, target_tokens)
        axes.set_title(f"head {head + 1}", fontsize=10)
    figure.suptitle(title, fontsize=11, wrap=True, parse_math=False)
    return figure


def _draw_head(
    axes: "Axes", weights: NDArray[np.float32], source: Sequence[str], target: Sequence[str]
) -> None:
    axes.imshow(weights, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    axes.set_xticks(range(len(source)), source, rotation=90, parse_math=False)
    axes.set_yticks(range(len(target)), target, parse_math=False)
    axes.tick_params(labelsize=8, length=0)
