"""One optimizer step means the same mathematics on any number of workers."""

import json
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from heliograph.model import SmoothedLoss, Transformer, TransformerConfig
from heliograph.pipeline.request.recipe import Train
from heliograph.pipeline.steps.batches import MicroBatch, empty_micro_batch
from heliograph.pipeline.training.step import (
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


@pytest.mark.parametrize("clip_norm", [0.0, 0.01])
def test_clipping_bounds_the_gradient(tmp_path: Path, clip_norm: float) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        torch.manual_seed(1)
        stopwatch = Stopwatch(torch.device("cpu"))
        module = data_parallel(Transformer(CONFIG), 0.1, stopwatch)
        optimizer = make_optimizer(module, Train(steps=1))
        batches = micro_batches()
        _, before = training_step(module, optimizer, batches, 37, clip_norm, stopwatch)
        after = torch.stack(
            [p.grad.norm() for p in module.parameters() if p.grad is not None]
        ).norm()
        expected = min(float(before), clip_norm) if clip_norm else float(before)
        assert float(after) == pytest.approx(expected, rel=1e-3)
        assert float(before) > 0.01
    finally:
        dist.destroy_process_group()


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
