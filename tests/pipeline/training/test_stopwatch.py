"""Phases follow each other, and their seconds are those that passed."""

import time

import pytest
import torch

from heliograph.pipeline.training.stopwatch import PHASES, Stopwatch


def test_each_phase_has_its_seconds_and_a_pause_belongs_to_none() -> None:
    watch = Stopwatch(torch.device("cpu"))
    watch.add("data", 0.25)
    begun = time.perf_counter()
    for _ in range(2):
        watch.start("forward")
        time.sleep(0.02)
        watch.start("backward")
        time.sleep(0.04)
        watch.stop()
        time.sleep(0.03)
    passed = time.perf_counter() - begun
    seconds = watch.read()
    assert set(seconds) == set(PHASES)
    assert seconds["data"] == 0.25
    assert seconds["forward"] >= 0.04
    assert seconds["backward"] >= 0.08
    assert seconds["forward"] + seconds["backward"] <= passed - 0.06
    assert watch.read() == dict.fromkeys(PHASES, 0.0)


def test_an_unknown_phase_is_our_own_bug() -> None:
    watch = Stopwatch(torch.device("cpu"))
    with pytest.raises(KeyError):
        watch.add("coffee", 1.0)
