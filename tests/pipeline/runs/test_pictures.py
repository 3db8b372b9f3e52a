"""Pictures are readable: a panel a head, every token on its axis."""

import io

import numpy as np

from heliograph.pipeline.runs.pictures import draw_attention, draw_curves


def test_every_head_has_a_panel_with_all_tokens() -> None:
    source, target = ["der", "Hund", "$", "</s>"], ["the", "dog", "</s>"]
    weights = np.full((8, 3, 4), 0.25, dtype=np.float32)
    figure = draw_attention("a title", source, target, weights)
    assert len(figure.axes) == 8
    for axes in figure.axes:
        assert [label.get_text() for label in axes.get_xticklabels()] == [
            "der", "Hund", "$", "</s>",
        ]  # fmt: skip
        assert [label.get_text() for label in axes.get_yticklabels()] == target


def test_text_is_drawn_as_it_is() -> None:
    """Between two dollar signs matplotlib reads mathematics, and this is none (issue 15, 1)."""
    tokens = [r"$\frac{$", r"\$_^{}$", "%&#~"]
    weights = np.full((1, 3, 3), 1 / 3, dtype=np.float32)
    figure = draw_attention(" ".join(tokens), tokens, tokens, weights)
    figure.savefig(io.BytesIO(), format="png")
    assert figure.get_suptitle() == " ".join(tokens)


def test_long_sentences_make_larger_pictures() -> None:
    def width(sources: int) -> float:
        weights = np.full((1, 3, sources), 1 / sources, dtype=np.float32)
        return float(draw_attention("", ["x"] * sources, ["a", "b", "c"], weights).get_figwidth())

    assert width(60) > 2 * width(20)


def test_every_curve_has_a_panel() -> None:
    figure = draw_curves({"train/loss": [(s, 1 / s) for s in range(1, 2000)], "b": [(1, 2.0)]})
    assert [axes.get_title() for axes in figure.axes] == ["train/loss", "b"]
    assert len(figure.axes[0].lines) == 2  # a crowded curve has its running mean
    assert len(figure.axes[1].lines) == 1
