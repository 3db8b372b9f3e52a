"""Best score and patience, and that no random state is needed to go on."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from heliograph.model import SmoothedLoss, Transformer, TransformerConfig
from heliograph.pipeline.checkpoints.training_state import Meter, TrainingState, Validation
from heliograph.pipeline.steps.windows import Position
from heliograph.pipeline.training.step import seed_of


@given(st.lists(st.floats(0, 100), min_size=1, max_size=20))
def test_patience_counts_validations_since_the_best(scores: list[float]) -> None:
    state = TrainingState()
    for number, bleu in enumerate(scores):
        state = replace(state, step=number).with_validation(Validation(number, 1.0, bleu, bleu))
    best = scores.index(max(scores))  # the first of equals: a later one is no better
    assert state.best is not None
    assert state.best.step == best
    assert state.validations_without_better == len(scores) - 1 - best
    assert TrainingState.from_json(state.to_json()) == state


@pytest.mark.parametrize(
    ("metric", "best"), [("bleu", 1), ("chrf", 2), ("loss", 3), ("exact_match", 4)]
)
def test_the_metric_decides_what_is_better(metric: str, best: int) -> None:
    state = TrainingState()
    for step in range(1, 5):
        measured = {"loss": 2.0, "bleu": 10.0, "chrf": 10.0, "exact_match": 10.0}
        better = ("bleu", "chrf", "loss", "exact_match")[step - 1]
        measured[better] += -1 if better == "loss" else 1
        state = state.with_validation(Validation(step, metric=metric, **measured))
    assert state.best is not None
    assert state.best.step == best
    assert TrainingState.from_json(state.to_json()) == state


def test_what_has_no_loss_is_never_better() -> None:
    state = TrainingState().with_validation(Validation(1, math.nan, 0.0, 0.0))
    assert state.with_validation(Validation(2, math.nan, 9.0, 9.0)).validations_without_better == 1
    better = state.with_validation(Validation(2, 1.0, 0.0, 0.0))
    assert better.best is not None
    assert better.best.step == 2
    assert better.with_validation(Validation(3, math.inf, 9.0, 9.0)).best == better.best


def test_all_of_it_comes_back() -> None:
    state = TrainingState(
        step=7,
        position=Position(epoch=1, window=2, step=3),
        latest=Validation(step=7, loss=1.7, bleu=20.0, chrf=40.0),
        best=Validation(step=5, loss=1.5, bleu=30.0, chrf=50.0),
        validations_without_better=2,
        averaged=Validation(step=7, loss=1.4, bleu=31.0, chrf=51.0),
        total=Meter(loss=3.0, target_tokens=10, positions=20, padding=1, seconds=0.5, wait=0.1),
    )
    assert TrainingState.from_json(state.to_json()) == state


def test_a_steps_random_numbers_follow_from_its_seed_alone() -> None:
    config = TransformerConfig(
        vocabulary_size=20, width=8, heads=2, encoder_layers=1, decoder_layers=1, feed_forward=8
    )
    model = SmoothedLoss(Transformer(config).train(), 0.1)
    ids = torch.randint(3, 20, (4, 6))

    def gradients(earlier_draws: int, step: int) -> torch.Tensor:
        torch.rand(earlier_draws)
        torch.manual_seed(seed_of(seed=1, step=step, rank=0))
        model.zero_grad()
        model(ids, ids, ids)[0].backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    elsewhere = random.getstate(), np.random.get_state()[1].tolist()
    assert torch.equal(gradients(0, step=5), gradients(100, step=5))
    assert not torch.equal(gradients(0, step=5), gradients(0, step=6))  # dropout does draw
    assert (random.getstate(), np.random.get_state()[1].tolist()) == elsewhere
