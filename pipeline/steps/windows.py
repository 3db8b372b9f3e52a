"""The step list: which pairs make which optimizer step. Pure arithmetic on lengths.

An epoch is a permutation of the corpus' pieces, cut into windows of `window_pieces`. The rows of a
window are shuffled, sorted by length, cut into micro-batches under the token budget, and these are
shuffled and grouped into optimizer steps. All of it follows from (seed, epoch, window) and the
lengths, so any process can work out any window by itself, and the list is the same for every number
of workers: they only share out each step's micro-batches (`deal`).

Lengths are in tokens and include the one special token that each side gets: </s> at the end of the
source and of the output, <s> at the start of the target.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]

_ATOMS = 32
_PRICE = 0.08
"""Of one more micro-batch, as a share of its budget in padded positions: see `cut_micro_batches`"""


@dataclass(frozen=True)
class Position:
    """A place in the step list: the step that is taken next."""

    epoch: int = 0
    window: int = 0
    step: int = 0
    """Within the window."""


class Purpose(IntEnum):
    """What random numbers are for, so that no two uses share a stream."""

    PIECES = 0
    ROWS = 1
    MICRO_BATCHES = 2
    TIMES = 3
    TOKENS = 4


def window_count(pieces: int, window_pieces: int) -> int:
    """Windows of an epoch."""
    return -(-pieces // window_pieces)


def pieces_of_epoch(counts: Sequence[int], shares: Sequence[int], seed: int, epoch: int) -> Numbers:
    """The numbers of the pieces that this epoch uses, in its order.

    Each corpus is gone through again and again, each time in another order. An epoch takes the next
    `share` pieces of that, so that a share of `count` is every piece once, twice that every piece
    twice, and of half that, two epochs are every piece once.

    Args:
        counts: pieces of each corpus; they are numbered through, one corpus after the other.
        shares: how many pieces of each corpus an epoch uses.
    """
    chosen, first = [], 0
    for corpus, (count, share) in enumerate(zip(counts, shares, strict=True)):
        begin, end = epoch * share, (epoch + 1) * share
        for time in range(begin // count, -(-end // count)):
            some = slice(max(begin - time * count, 0), min(end - time * count, count))
            whole = some == slice(0, count)  # then their order does not matter
            order = (
                np.arange(count) if whole else _shuffled(count, seed, time, corpus, Purpose.TIMES)
            )
            chosen.append(first + order[some])
        first += count
    pieces = np.concatenate(chosen)
    return pieces[_shuffled(len(pieces), seed, epoch, 0, Purpose.PIECES)]


def pieces_of_window(pieces: Numbers, window_pieces: int, window: int) -> Numbers:
    """Of an epoch's pieces those of this window, at most `window_pieces` of them.

    The windows of an epoch are of nearly equal size, so that none is too small to be cut well.
    """
    windows = window_count(len(pieces), window_pieces)
    return pieces[len(pieces) * window // windows : len(pieces) * (window + 1) // windows]


def cut_window(
    source: Numbers,
    target: Numbers,
    tokens_per_micro_batch: int,
    tokens_per_step: int,
    *,
    seed: int,
    epoch: int,
    window: int,
) -> list[list[Numbers]]:
    """The window's steps, each a list of micro-batches, each the numbers of its rows.

    Every row is in exactly one micro-batch, except those with a side longer than
    `tokens_per_micro_batch`, which are in none. A micro-batch's pairs × longest side is at most
    `tokens_per_micro_batch`, and the sum of that over a step at most `tokens_per_step`. Steps have
    nearly equal numbers of micro-batches, of any lengths.

    Args:
        source, target: the rows' lengths.
    """
    rows = _shuffled(len(source), seed, epoch, window, Purpose.ROWS)
    rows = rows[np.maximum(source, target)[rows] <= tokens_per_micro_batch]
    if not len(rows):
        return []
    cut = cut_micro_batches(source[rows], target[rows], tokens_per_micro_batch)
    order = _shuffled(len(cut), seed, epoch, window, Purpose.MICRO_BATCHES)
    steps = -(-len(cut) // (tokens_per_step // tokens_per_micro_batch))
    return [[rows[cut[i]] for i in step] for step in np.array_split(order, steps)]


def cut_micro_batches(source: Numbers, target: Numbers, budget: int) -> list[Numbers]:
    """Group rows of similar lengths, such that a group's rows × longest side is within the budget.

    The rows are laid out along a path through the plane of lengths: by the longer side, and within
    one value of it by the difference of the sides, to and fro, so that neighbours on the path are
    alike on both sides. The path is then cut where the padded positions are fewest (dynamic
    programming), each group costing 8 % of the budget besides, which trades padding for well
    filled groups. On Multi30k (8k BPE, 16k rows, 4096 tokens) 2.8 % of positions are padding;
    filling each group to the brim gives 4.6 %, sorting by target then source length 9 %.

    Args:
        source, target: lengths; none may exceed the budget.
    """
    longest = np.maximum(source, target)
    difference = target - source
    path = np.lexsort((np.where(longest % 2 == 0, difference, -difference), longest))
    bounds = _atoms(longest[path], budget)
    source, target = (np.maximum.reduceat(side[path], bounds[:-1]) for side in (source, target))
    cuts = _cheapest_cuts(source, target, bounds, budget)
    return [path[start:end] for start, end in pairwise(cuts)]


def deal(costs: Sequence[int], world_size: int, first: int = 0) -> list[list[int]]:
    """Share out a step's micro-batches: for each rank the numbers of those it gets, maybe none.

    The costliest first, each to the rank with the least so far; of equals to the next from `first`
    on. With the step's number there, none is always the one that gets more, or none.
    """
    shares: list[list[int]] = [[] for _ in range(world_size)]
    loads = [0] * world_size
    for number in sorted(range(len(costs)), key=lambda number: -costs[number]):
        rank = min(range(world_size), key=lambda rank: (loads[rank], (rank - first) % world_size))
        shares[rank].append(number)
        loads[rank] += costs[number]
    return shares


def _shuffled(n: int, seed: int, epoch: int, window: int, purpose: Purpose) -> Numbers:
    """A permutation of range(n). By raw random bits, whose stream NumPy never changes, as it may
    that of Generator.permutation."""
    bits = np.random.Philox(np.random.SeedSequence([seed, epoch, window, purpose]))
    return np.argsort(bits.random_raw(n), kind="stable")


def _atoms(longest: Numbers, budget: int) -> Numbers:
    """Bounds of runs that are not cut further: a 32nd of the budget each, or a single row.

    They keep the search short whatever the number of rows; finer ones gain nothing.
    """
    bounds = [0]
    while bounds[-1] < len(longest):
        start = bounds[-1]
        ahead = longest[start : start + max(1, budget // _ATOMS // int(longest[start]))]
        sizes = ahead * np.arange(1, len(ahead) + 1)
        bounds.append(start + max(1, int(np.searchsorted(sizes, budget // _ATOMS, "right"))))
    return np.array(bounds)


def _cheapest_cuts(source: Numbers, target: Numbers, bounds: Numbers, budget: int) -> list[int]:
    """Bounds of the groups of atoms with the least padded positions + price × number of groups.

    Args:
        source, target: each atom's longest; max(source, target) ascends.
        bounds: row numbers, one more than there are atoms.
    """
    atoms = len(source)
    longest = np.maximum(source, target)
    best = np.zeros(atoms + 1)
    end_of = np.zeros(atoms, dtype=np.int64)
    for first in range(atoms - 1, -1, -1):
        furthest = int(np.searchsorted(bounds, bounds[first] + budget // longest[first], "right"))
        rows = bounds[first + 1 : furthest] - bounds[first]
        fitting = int(np.searchsorted(rows * longest[first : furthest - 1], budget, "right"))
        last = first + fitting
        positions = rows[:fitting] * (
            np.maximum.accumulate(source[first:last]) + np.maximum.accumulate(target[first:last])
        )
        costs = positions + best[first + 1 : last + 1]
        choice = int(np.argmin(costs))
        best[first] = costs[choice] + _PRICE * budget
        end_of[first] = first + 1 + choice
    cuts, atom = [0], 0
    while atom < atoms:
        atom = int(end_of[atom])
        cuts.append(int(bounds[atom]))
    return cuts
