"""A snapshot is what stood at its step, whatever training does while it is written."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from heliograph.model import Transformer, TransformerConfig
from heliograph.pipeline.checkpoints.checkpoint import (
    Snapshot,
    average,
    load_optimizer,
    load_state,
    moments_of,
)
from heliograph.pipeline.checkpoints.model_folder import load_model
from heliograph.pipeline.checkpoints.training_state import TrainingState
from heliograph.pipeline.request.recipe import Train
from heliograph.pipeline.steps.tokenizer import Tokenizer
from heliograph.pipeline.training.step import make_optimizer


class Training:
    """A small model with its optimizer."""

    def __init__(self, vocabulary_size: int) -> None:
        torch.manual_seed(0)
        self.model = Transformer(
            TransformerConfig(
                vocabulary_size,
                width=8,
                heads=2,
                encoder_layers=1,
                decoder_layers=1,
                feed_forward=8,
            )
        )
        self.optimizer = make_optimizer(self.model, Train(steps=1))

    def take_step(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = 0.1
        for parameter in self.model.parameters():
            parameter.grad = torch.randn_like(parameter)
        self.optimizer.step()

    def tensors(self) -> dict[str, torch.Tensor]:
        live = [*self.model.named_parameters(), *moments_of(self.model, self.optimizer)]
        return {name: tensor.detach().clone() for name, tensor in live}


@pytest.fixture
def training(tiny_tokenizer: Tokenizer) -> Training:
    return Training(tiny_tokenizer.vocabulary_size)


@pytest.fixture
def snapshot(training: Training, tiny_tokenizer: Tokenizer) -> Snapshot:
    return Snapshot(training.model, training.optimizer, tiny_tokenizer, "seed: 1\n")


def restored(folder: Path, vocabulary_size: int) -> dict[str, torch.Tensor]:
    again = Training(vocabulary_size)
    again.model, _ = load_model(folder)
    again.optimizer = make_optimizer(again.model, Train(steps=1))
    load_optimizer(folder, again.model, again.optimizer)
    return again.tensors()


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_what_is_written_is_what_was_taken(
    training: Training, snapshot: Snapshot, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    for step in (1, 2):  # the second one into the memory of the first
        training.take_step()
        expected, folder = training.tensors(), tmp_path / str(step)
        folder.mkdir()
        write = snapshot.take(TrainingState(step=step))
        training.take_step()
        write(folder)
        assert_equal(restored(folder, tiny_tokenizer.vocabulary_size), expected)
        assert load_state(folder) == TrainingState(step=step)
        assert (folder / "recipe.yaml").read_text() == "seed: 1\n"


def test_training_goes_on_from_a_checkpoint_as_if_nothing_had_been(
    training: Training, snapshot: Snapshot, tmp_path: Path
) -> None:
    training.take_step()
    snapshot.take(TrainingState(step=1))(tmp_path)
    again = Training(training.model.config.vocabulary_size)
    again.model, _ = load_model(tmp_path)
    again.optimizer = make_optimizer(again.model, Train(steps=1))
    load_optimizer(tmp_path, again.model, again.optimizer)
    (tmp_path / "optimizer.safetensors").write_bytes(b"")  # nothing depends on the file now
    for each in (training, again):
        torch.manual_seed(1)
        each.take_step()
    assert_equal(again.tensors(), training.tensors())


def test_before_the_first_step_there_are_no_moments(
    training: Training, snapshot: Snapshot, tmp_path: Path
) -> None:
    snapshot.take(TrainingState())(tmp_path)
    load_optimizer(tmp_path, training.model, training.optimizer)
    assert dict(moments_of(training.model, training.optimizer)) == {}


def test_the_average_is_the_mean_of_the_weights(tmp_path: Path) -> None:
    tensors = [torch.randn(3, 4) for _ in range(3)]
    folders = [tmp_path / str(number) for number in range(3)]
    for folder, tensor in zip(folders, tensors, strict=True):
        folder.mkdir()
        save_file({"weight": tensor}, folder / "model.safetensors")
    torch.testing.assert_close(average(folders)["weight"], torch.stack(tensors).mean(0))
