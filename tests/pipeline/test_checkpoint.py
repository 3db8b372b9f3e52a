"""Checkpoints are whole or absent, and a damaged one falls back to the one before."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model import Transformer, TransformerConfig
from pipeline.batches import Position
from pipeline.checkpoint import (
    CheckpointStore,
    TrainingState,
    Validation,
    average,
    load_optimizer,
    load_state,
    save_state,
    verify,
)
from pipeline.recipe import Train
from pipeline.step import Meter, make_optimizer

CONFIG = TransformerConfig(
    vocabulary_size=20, width=8, heads=2, encoder_layers=1, decoder_layers=1, feed_forward=8
)


@pytest.fixture
def store(storage: str) -> CheckpointStore:
    return CheckpointStore(f"{storage}/checkpoints")


def write_text(text: str):
    return lambda folder: (folder / "model.json").write_text(text)


def test_the_newest_is_found(store: CheckpointStore, tmp_path: Path) -> None:
    assert store.steps() == []
    assert store.fetch_newest(tmp_path / "none") is None
    assert store.newest_state() == TrainingState()
    for step in (100, 20, 3):
        store.save(step, write_text(str(step)))
    assert store.steps() == [3, 20, 100]
    assert store.fetch_newest(tmp_path / "newest") == 100
    assert (tmp_path / "newest" / "model.json").read_text() == "100"


@pytest.mark.parametrize("damage", ["changed", "removed", "no checksums"])
def test_a_damaged_one_falls_back_loudly(
    store: CheckpointStore,
    storage: str,
    tmp_path: Path,
    damage: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for step in (1, 2):
        store.save(step, write_text(str(step)))
    folder = Path(storage) / "checkpoints" / "step-00000002"
    if damage == "changed":
        (folder / "model.json").write_text("9")
    elif damage == "removed":
        (folder / "model.json").unlink()
    else:
        (folder / "checksums.json").unlink()
    with caplog.at_level(logging.ERROR):
        assert store.fetch_newest(tmp_path / "newest") == 1
    assert "checkpoint of step 2 is damaged" in caplog.text
    assert (tmp_path / "newest" / "model.json").read_text() == "1"


def test_a_write_that_fails_leaves_nothing(store: CheckpointStore) -> None:
    def fail(folder: Path) -> None:
        (folder / "model.json").write_text("half")
        raise OSError("no space left on device")

    store.save(1, write_text("1"))
    with pytest.raises(OSError, match="no space"):
        store.save(2, fail)
    assert store.steps() == [1]


def test_the_newest_and_the_named_are_kept(store: CheckpointStore) -> None:
    for step in range(1, 8):
        store.save(step, write_text(str(step)))
    store.prune(keep_newest=2, keep_also=[3])
    assert store.steps() == [3, 6, 7]


def test_optimizer_and_state_come_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Transformer(CONFIG)
    optimizer = make_optimizer(model, Train(steps=1))
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    state = TrainingState(
        step=7,
        position=Position(epoch=1, window=2, step=3),
        best=Validation(step=5, loss=1.5, bleu=30.0, chrf=50.0),
        total=Meter(loss=3.0, target_tokens=10, positions=20, padding=1, seconds=0.5, wait=0.1),
    )
    save_state(tmp_path, model, optimizer, state)
    assert load_state(tmp_path) == state
    again = make_optimizer(model, Train(steps=1))
    load_optimizer(tmp_path, model, again)
    for parameter in model.parameters():
        for key, value in optimizer.state[parameter].items():
            assert torch.equal(again.state[parameter][key], value), key


def test_verify_names_the_file(store: CheckpointStore, tmp_path: Path) -> None:
    store.save(1, write_text("1"))
    store.fetch(1, tmp_path / "copy")
    (tmp_path / "copy" / "model.json").write_text("2")
    with pytest.raises(OSError, match=r"model\.json differs"):
        verify(tmp_path / "copy")


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


def test_the_average_is_the_mean_of_the_weights(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    tensors = [torch.randn(3, 4) for _ in range(3)]
    folders = [tmp_path / str(number) for number in range(3)]
    for folder, tensor in zip(folders, tensors, strict=True):
        folder.mkdir()
        save_file({"weight": tensor}, folder / "model.safetensors")
    torch.testing.assert_close(average(folders)["weight"], torch.stack(tensors).mean(0))
