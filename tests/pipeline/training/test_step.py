"""One optimizer step means the same mathematics on any number of workers."""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from heliograph.model import SmoothedLoss, Transformer, TransformerConfig
from heliograph.pipeline.request.recipe import Train
from heliograph.pipeline.steps.batches import MicroBatch, empty_micro_batch
from heliograph.pipeline.training.step import (
    be_deterministic,
    data_parallel,
    is_out_of_memory,
    make_optimizer,
    seed_of,
    training_step,
)
from heliograph.pipeline.training.stopwatch import Stopwatch
from tests import processes

CONFIG = TransformerConfig(
    vocabulary_size=50,
    width=16,
    heads=2,
    encoder_layers=2,
    decoder_layers=2,
    feed_forward=32,
    dropout=0.0,
    attention_dropout=0.0,
    embedding_dropout=0.0,
)


LOOKS = {"aten::item", "aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero"}
"""What brings a value from the device."""


def micro_batches() -> list[MicroBatch]:
    """Three of them, of uneven shapes and target counts: 3, 10 and 24 tokens."""
    generator = torch.Generator().manual_seed(0)

    def ids(rows: int, length: int) -> list[list[int]]:
        return torch.randint(3, 50, (rows, length), generator=generator).tolist()

    return [
        MicroBatch.from_lists(ids(rows, source), ids(rows, target), ids(rows, target))
        for rows, source, target in [(1, 7, 3), (2, 4, 5), (4, 3, 6)]
    ]


def take_step(rank: int, world_size: int, folder: str, shares: list[list[int]]) -> None:
    """One process of a gloo group takes its share of the step; rank 0 keeps the gradient."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world_size
    )
    torch.set_num_threads(1)
    torch.manual_seed(1)
    stopwatch = Stopwatch(torch.device("cpu"))
    module = data_parallel(Transformer(CONFIG), 0.1, stopwatch)
    batches = micro_batches()
    tokens = sum(int((batch.target_out != CONFIG.pad_id).sum()) for batch in batches)
    share = [batches[number] for number in shares[rank]] or [empty_micro_batch()]
    optimizer = make_optimizer(module, Train(steps=1))
    training_step(module, optimizer, share, tokens, 0.0, stopwatch)
    if rank == 0:
        gradients = {name: p.grad for name, p in module.named_parameters()}
        torch.save(gradients, f"{folder}/gradients.pt")
    dist.barrier()
    dist.destroy_process_group()


def gradients_of(folder: Path, shares: list[list[int]]) -> dict[str, torch.Tensor]:
    folder.mkdir()
    processes.run_ranks(take_step, (len(shares), str(folder), shares), len(shares))
    return torch.load(folder / "gradients.pt", weights_only=True)


def test_gradients_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    alone = gradients_of(tmp_path / "alone", [[0, 1, 2]])
    assert all(gradient.abs().sum() > 0 for gradient in alone.values())
    for name, shares in {
        "two": [[0, 2], [1]],
        "three, one without a share": [[2, 0], [], [1]],
    }.items():
        together = gradients_of(tmp_path / name, shares)
        for key, gradient in alone.items():
            torch.testing.assert_close(together[key], gradient, rtol=1e-5, atol=1e-7)


def test_the_gradient_is_that_of_the_mean_over_all_target_tokens(tmp_path: Path) -> None:
    torch.manual_seed(1)
    loss_of = SmoothedLoss(Transformer(CONFIG), 0.1)
    parts = [loss_of(batch.source, batch.target_in, batch.target_out) for batch in micro_batches()]
    mean = sum(loss for loss, _ in parts) / sum(int(tokens) for _, tokens in parts)
    mean.backward()
    taken = gradients_of(tmp_path / "step", [[0, 1], [2]])
    for name, parameter in loss_of.named_parameters():
        torch.testing.assert_close(taken[f"module.{name}"], parameter.grad, rtol=1e-5, atol=1e-7)


def test_random_numbers_differ_by_step_and_rank() -> None:
    seeds = {
        seed_of(seed, step, rank) for seed in (1, 2) for step in range(50) for rank in range(8)
    }
    assert len(seeds) == 2 * 50 * 8
    assert seed_of(1, 7, 3) == seed_of(1, 7, 3)
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Callable[..., tuple[torch.Tensor, torch.Tensor]]]:
    """A step of the only rank, with a learning rate; `alone.module` and `alone.optimizer`."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    torch.manual_seed(1)
    stopwatch = Stopwatch(torch.device("cpu"))
    module = data_parallel(Transformer(CONFIG), 0.1, stopwatch)
    optimizer = make_optimizer(module, Train(steps=1))
    for group in optimizer.param_groups:
        group["lr"] = 0.01

    def take(
        batches: list[MicroBatch], clip_norm: float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return training_step(module, optimizer, batches, 37, clip_norm, stopwatch)

    take.module, take.optimizer = module, optimizer  # type: ignore[attr-defined]
    yield take
    dist.destroy_process_group()


@pytest.mark.parametrize("clip_norm", [0.0, 0.01])
def test_clipping_bounds_the_gradient(alone: Any, clip_norm: float) -> None:
    _, before = alone(micro_batches(), clip_norm)
    gradients = [p.grad for p in alone.module.parameters() if p.grad is not None]
    after = torch.stack([gradient.norm() for gradient in gradients]).norm()
    expected = min(float(before), clip_norm) if clip_norm else float(before)
    assert float(after) == pytest.approx(expected, rel=1e-3)
    assert float(before) > 0.01


def take_step_deterministically(rank: int, world_size: int, folder: str) -> None:
    be_deterministic()
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"]
    take_step(rank, world_size, folder, [[0, 1, 2]])


def test_a_step_can_be_deterministic(tmp_path: Path) -> None:
    """Nothing in it is refused by torch, and on a CPU nothing changes."""
    expected = gradients_of(tmp_path / "as it is", [[0, 1, 2]])
    processes.run_ranks(take_step_deterministically, (1, str(tmp_path)), 1)
    found = torch.load(tmp_path / "gradients.pt", weights_only=True)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=0)


def everything(alone: Any) -> list[torch.Tensor]:
    """Weights, moments and counts of steps."""
    moments = [each for state in alone.optimizer.state.values() for each in state.values()]
    return [tensor.clone() for tensor in (*alone.module.parameters(), *moments)]


def test_a_gradient_that_is_not_finite_changes_nothing(alone: Any) -> None:
    """Of all that a later step depends on; the GPU decides it without a look from here."""
    alone(micro_batches())
    before = everything(alone)
    weight = alone.module.module.model.embedding.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[3, 0] = torch.nan
    _, norm = alone(micro_batches())
    assert not norm.isfinite()
    with torch.no_grad():
        weight.copy_(kept)
    for old, new in zip(before, everything(alone), strict=True):
        torch.testing.assert_close(new, old, rtol=0, atol=0)
    _, norm = alone(micro_batches())
    assert norm.isfinite()
    assert any(not torch.equal(a, b) for a, b in zip(before, everything(alone), strict=True))


def test_a_step_looks_at_no_value(alone: Any) -> None:
    """Each look would wait until a GPU has computed all before it (issue 17, 7). The optimizer's
    kernel for CPUs looks at its own counts; that for GPUs reads them there."""
    alone(micro_batches())
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        loss, norm = alone(micro_batches())
    found = [event for event in profile.events() or [] if event.name in LOOKS]
    assert found, "the profiler sees the optimizer's"
    outside = [event.cpu_parent.name for event in found if event.name == "aten::item"]
    assert set(outside) == {"aten::_fused_adamw_"}
    assert {event.name for event in found} == {"aten::item", "aten::_local_scalar_dense"}
    assert loss.isfinite()
    assert norm.isfinite()


def wait_for_the_slow_rank(rank: int, world_size: int, folder: str) -> None:
    """Rank 1 comes two seconds late to each of two steps; rank 0 keeps its seconds."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world_size
    )
    torch.set_num_threads(1)
    stopwatch = Stopwatch(torch.device("cpu"))
    module = data_parallel(Transformer(CONFIG), 0.1, stopwatch)
    optimizer = make_optimizer(module, Train(steps=1))
    for _ in range(2):
        if rank == 1:
            time.sleep(2.0)
        training_step(module, optimizer, micro_batches(), 37, 0.0, stopwatch)
    if rank == 0:
        Path(folder, "seconds").write_text(json.dumps(stopwatch.read()))
    dist.barrier()
    dist.destroy_process_group()


def test_waiting_for_a_slow_rank_is_not_taken_for_computing(tmp_path: Path) -> None:
    processes.run_ranks(wait_for_the_slow_rank, (2, str(tmp_path)), 2)
    seconds = json.loads((tmp_path / "seconds").read_text())
    assert seconds["sync"] > 1  # of 4, less what rank 0 was late itself on a busy machine
    assert 0 < seconds["backward"] < seconds["sync"]
    assert seconds["forward"] > 0
    assert seconds["update"] > 0


def test_memory_that_is_not_there_is_told_from_other_errors() -> None:
    """On CPUs torch's error is a RuntimeError like any other (issue 15, 8)."""
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**50, dtype=torch.uint8)
    assert is_out_of_memory(error.value)
    with pytest.raises(RuntimeError) as error:
        torch.ones(2) @ torch.ones(3)
    assert not is_out_of_memory(error.value)
