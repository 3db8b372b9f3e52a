"""The laws of the step list, over any lengths, budgets, windows and numbers of workers."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from heliograph.pipeline.steps.windows import (
    Numbers,
    cut_micro_batches,
    cut_window,
    deal,
    pieces_of_epoch,
    pieces_of_window,
    window_count,
)

lengths = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), max_size=300).map(
    lambda pairs: np.array(pairs, dtype=np.int64).reshape(-1, 2).T
)


def positions(source: Numbers, target: Numbers, rows: Numbers) -> int:
    return len(rows) * max(source[rows].max(), target[rows].max())


@given(
    lengths=lengths,
    budget=st.integers(16, 300),
    per_step=st.floats(1, 5),
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 3),
)
def test_every_row_is_in_one_micro_batch_and_no_budget_is_exceeded(
    lengths: Numbers, budget: int, per_step: float, seed: int, epoch: int
) -> None:
    source, target = lengths
    step_budget = int(budget * per_step)
    steps = cut_window(source, target, budget, step_budget, seed=seed, epoch=epoch, window=0)
    rows = [row for step in steps for micro_batch in step for row in micro_batch.tolist()]
    fitting = np.flatnonzero(np.maximum(source, target) <= budget)
    assert sorted(rows) == fitting.tolist()
    costs = [[positions(source, target, rows) for rows in step] for step in steps]
    assert all(cost <= budget for step in costs for cost in step)
    assert all(0 < sum(step) <= step_budget for step in costs)
    counts = [len(step) for step in steps]
    assert not counts or max(counts) - min(counts) <= 1
    again = cut_window(source, target, budget, step_budget, seed=seed, epoch=epoch, window=0)
    assert [[m.tolist() for m in step] for step in again] == [
        [m.tolist() for m in step] for step in steps
    ]


@given(costs=st.lists(st.integers(1, 4096), max_size=20), world_size=st.integers(1, 9))
def test_a_step_is_dealt_whole_and_evenly(costs: list[int], world_size: int) -> None:
    shares = deal(costs, world_size)
    assert len(shares) == world_size
    assert sorted(number for share in shares for number in share) == list(range(len(costs)))
    loads = [sum(costs[number] for number in share) for share in shares]
    assert max(loads) - min(loads) <= max(costs, default=0)


@given(count=st.integers(1, 20), world_size=st.integers(1, 9))
def test_what_is_equal_is_dealt_round(count: int, world_size: int) -> None:
    """Else the same ranks have less to do, or nothing, at every step (issue 15, 3)."""
    steps = [deal([100] * count, world_size, step) for step in range(world_size)]
    assert {sum(len(shares[rank]) for shares in steps) for rank in range(world_size)} == {count}


@given(pieces=st.integers(1, 60), window_pieces=st.integers(1, 20), seed=st.integers(0, 9))
def test_an_epochs_windows_hold_every_piece_once(
    pieces: int, window_pieces: int, seed: int
) -> None:
    order = pieces_of_epoch([pieces], [pieces], seed, 5)
    windows = [
        pieces_of_window(order, window_pieces, window).tolist()
        for window in range(window_count(pieces, window_pieces))
    ]
    assert sorted(piece for window in windows for piece in window) == list(range(pieces))
    sizes = [len(window) for window in windows]
    assert max(sizes) <= window_pieces
    assert max(sizes) - min(sizes) <= 1


mixtures = st.lists(st.tuples(st.integers(1, 20), st.integers(1, 50)), min_size=1, max_size=4)


@given(mixture=mixtures, seed=st.integers(0, 9), epochs=st.integers(1, 12))
def test_each_corpus_of_a_mixture_is_gone_through_evenly(
    mixture: list[tuple[int, int]], seed: int, epochs: int
) -> None:
    """After any number of epochs no piece of a corpus was used twice more than another."""
    counts, shares = (list(each) for each in zip(*mixture, strict=True))
    used = np.zeros(sum(counts), np.int64)
    for epoch in range(epochs):
        pieces = pieces_of_epoch(counts, shares, seed, epoch)
        assert len(pieces) == sum(shares)
        used += np.bincount(pieces, minlength=len(used))
    first = 0
    for count, share in mixture:
        own = used[first : first + count]
        assert own.sum() == epochs * share
        assert own.max() - own.min() <= 1
        first += count


def test_epochs_seeds_and_windows_differ() -> None:
    epochs = {tuple(pieces_of_epoch([50], [50], 1, epoch)) for epoch in range(20)}
    seeds = {tuple(pieces_of_epoch([50], [50], seed, 0)) for seed in range(20)}
    assert len(epochs | seeds) == 39
    source = np.full(100, 9)
    cuts = [
        cut_window(source, source, 90, 90, seed=seed, epoch=epoch, window=window)
        for seed, epoch, window in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    ]
    assert len({tuple(np.concatenate([m for step in cut for m in step])) for cut in cuts}) == 4


def test_the_list_is_the_one_that_older_checkpoints_point_into() -> None:
    """Should this fail, the step list has changed and stored positions have lost their meaning."""
    pieces = pieces_of_epoch([8], [8], seed=1, epoch=2)
    assert pieces_of_window(pieces, 4, window=1).tolist() == [4, 2, 6, 5]
    mixed = pieces_of_epoch([4, 3], [2, 6], seed=1, epoch=1)
    assert mixed.tolist() == [6, 3, 5, 5, 4, 2, 4, 6]
    source = np.array([3, 9, 4, 4, 8, 2, 9, 5, 3, 7, 6, 2])
    steps = cut_window(source, source[::-1].copy(), 40, 90, seed=1, epoch=2, window=1)
    assert [[rows.tolist() for rows in step] for step in steps] == [
        [[2], [9, 4]],
        [[1], [7, 5, 10]],
        [[11, 0], [6]],
        [[3, 8]],
    ]


def captions(rows: int) -> tuple[Numbers, Numbers]:
    """Lengths as Multi30k has them: median 15, the sides correlated by 0.87."""
    random = np.random.default_rng(0)
    source = 4 + random.gamma(6, 1.9, rows)
    target = np.maximum(3, 1 + source + random.normal(0, 2.3, rows))
    return source.astype(np.int64), target.astype(np.int64)


def test_padding_is_a_few_percent() -> None:
    source, target = captions(16_384)
    micro_batches = cut_micro_batches(source, target, 4096)
    shape = [(len(rows), source[rows].max() + target[rows].max()) for rows in micro_batches]
    padding = 1 - (source.sum() + target.sum()) / sum(rows * both for rows, both in shape)
    assert padding < 0.03
    filled = np.mean([positions(source, target, rows) for rows in micro_batches]) / 4096
    assert filled > 0.75


def test_steps_are_not_in_order_of_length() -> None:
    source, target = captions(16_384)
    steps = cut_window(source, target, 2048, 2048, seed=0, epoch=0, window=0)
    means = np.array([source[step[0]].mean() for step in steps])
    assert len(means) > 100
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.2
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.2
