"""One window's steps as Arrow rows: made by a Ray task, eaten by the training workers.

A row is a portion: a few consecutive steps, and of these one rank's micro-batches. A step in which
a rank has no micro-batch is in its portion all the same, and every rank's portions hold the same
steps.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

import numpy as np
import pyarrow as pa

from heliograph.pipeline.corpus.mixture import Mixture
from heliograph.pipeline.request import recipe
from heliograph.pipeline.steps.sampling import SubwordSampler
from heliograph.pipeline.steps.tokenizer import Tokenizer, shared_tokenizer
from heliograph.pipeline.steps.tokens import SIDES, Encoder, Ragged, tokens_of
from heliograph.pipeline.steps.windows import (
    Numbers,
    Purpose,
    cut_window,
    deal,
    pieces_of_epoch,
    pieces_of_window,
    window_count,
)

STEPS_PER_PORTION = 8
"""Few enough that a row is well under a megabyte, many enough that rows are not the cost."""

SCHEMA = pa.schema(
    [
        # The place of the portion in the step list, for the worker to check.
        *((name, pa.int64()) for name in ("epoch", "window", "first_step", "steps")),
        *((name, pa.int64()) for name in ("rank", "world_size")),
        *((name, pa.int64()) for name in ("steps_in_window", "windows_in_epoch")),
        ("too_many_tokens", pa.int64()),  # pairs of the window that are in no step
        ("last", pa.bool_()),  # whether the stream ends here
        # For each step: the target tokens of all ranks, and the micro-batches of this one.
        ("step_target_tokens", pa.list_(pa.int64())),
        ("step_micro_batches", pa.list_(pa.int32())),
        # For each micro-batch, then for each pair, then for each token. No special tokens.
        ("micro_batch_pairs", pa.list_(pa.int32())),
        ("pairs", pa.list_(pa.int64())),
        ("source_lengths", pa.list_(pa.int32())),
        ("target_lengths", pa.list_(pa.int32())),
        ("source_tokens", pa.list_(pa.int32())),
        ("target_tokens", pa.list_(pa.int32())),
    ]
)


@dataclass(frozen=True)
class WindowPlan:
    """What the step list follows from, and among how many it is shared out. Goes to each task."""

    mixture: Mixture
    tokenizer: str
    """As JSON."""
    batches: recipe.Batches
    augment: recipe.Augment
    seed: int
    world_size: int

    @property
    def windows_in_epoch(self) -> int:
        return window_count(sum(self.mixture.shares), self.batches.window_pieces)


def portions(
    plan: WindowPlan, tokenizer: Tokenizer, epoch: int, window: int, start: int, last: bool
) -> Iterator[pa.Table]:
    """The window's steps from number `start` on, as one-row tables: for every STEPS_PER_PORTION
    steps the portion of rank 0, of rank 1, and so on. A window without steps has one empty portion
    per rank.

    Raises:
        RuntimeError: the window has fewer steps than `start`, so `start` is of another step list.
    """
    batches, seed, mixture = plan.batches, plan.seed, plan.mixture
    pieces = _pieces_of_epoch(mixture.piece_counts, mixture.shares, seed, epoch)
    table = mixture.read(pieces_of_window(pieces, batches.window_pieces, window).tolist())
    source, target = tokens_of(table, _encoders(plan, tokenizer, epoch, window))
    longest = np.maximum(source.lengths, target.lengths) + 1
    steps = cut_window(
        source.lengths + 1,
        target.lengths + 1,
        batches.tokens_per_micro_batch,
        batches.tokens_per_step,
        seed=seed,
        epoch=epoch,
        window=window,
    )
    if start > len(steps):
        raise RuntimeError(
            f"the position epoch {epoch}, window {window}, step {start} is not in the step list: "
            f"the window has {len(steps)} steps; corpus, tokenizer, seed or batches have changed"
        )
    common = {
        "epoch": epoch,
        "window": window,
        "world_size": plan.world_size,
        "steps_in_window": len(steps),
        "windows_in_epoch": plan.windows_in_epoch,
        "too_many_tokens": int((longest > batches.tokens_per_micro_batch).sum()),
    }
    pairs = table["pair"].to_numpy()
    for first in range(start, max(len(steps), start + 1), STEPS_PER_PORTION):
        some = steps[first : first + STEPS_PER_PORTION]
        shares = [
            _share_out(step, longest, plan.world_size, number)
            for number, step in enumerate(some, start=first)
        ]
        place = {
            "first_step": first,
            "steps": len(some),
            "last": last and first + STEPS_PER_PORTION >= len(steps),
            "step_target_tokens": [
                sum(int(target.lengths[rows].sum()) + len(rows) for rows in step) for step in some
            ],
        }
        for rank in range(plan.world_size):
            mine = [share[rank] for share in shares]
            contents = _contents(mine, pairs, source, target)
            yield _one_row(common | place | {"rank": rank} | contents)


@lru_cache(maxsize=1)
def _pieces_of_epoch(
    counts: tuple[int, ...], shares: tuple[int, ...], seed: int, epoch: int
) -> Numbers:
    """For all windows of the epoch that this process makes: of billions of pairs it takes a second
    (issue 15, point 9)."""
    return pieces_of_epoch(counts, shares, seed, epoch)


def _encoders(plan: WindowPlan, tokenizer: Tokenizer, epoch: int, window: int) -> list[Encoder]:
    """Each side's. What is drawn follows from the place in the step list, as the list itself."""
    if plan.augment == recipe.Augment():
        return [tokenizer, tokenizer]
    sampler = _sampler(tokenizer.to_json(), plan.augment.model_dump_json())
    place = (plan.seed, epoch, window, Purpose.TOKENS)
    return [sampler.encoder(*place, side) for side in range(len(SIDES))]


@lru_cache(maxsize=1)
def _sampler(tokenizer: str, augment: str) -> SubwordSampler:
    """One for each process, because it remembers words."""
    return SubwordSampler(shared_tokenizer(tokenizer), recipe.Augment.model_validate_json(augment))


def _share_out(
    step: list[Numbers], longest: Numbers, world_size: int, number: int
) -> list[list[Numbers]]:
    """For each rank its micro-batches of the step of that number."""
    costs = [len(rows) * int(longest[rows].max()) for rows in step]
    return [[step[each] for each in share] for share in deal(costs, world_size, number)]


def _contents(
    steps: list[list[Numbers]], pairs: Numbers, source: Ragged, target: Ragged
) -> dict[str, object]:
    micro_batches = list(chain.from_iterable(steps))
    rows = np.concatenate([*micro_batches, np.empty(0, np.int64)])
    source, target = source.take(rows), target.take(rows)
    return {
        "step_micro_batches": [len(step) for step in steps],
        "micro_batch_pairs": [len(rows) for rows in micro_batches],
        "pairs": pairs[rows],
        "source_lengths": source.lengths,
        "target_lengths": target.lengths,
        "source_tokens": source.tokens,
        "target_tokens": target.tokens,
    }


def _one_row(values: dict[str, object]) -> pa.Table:
    columns = []
    for field in SCHEMA:
        value = values[field.name]
        if pa.types.is_list(field.type):
            flat = pa.array(np.asarray(value, field.type.value_type.to_pandas_dtype()))
            columns.append(pa.ListArray.from_arrays(pa.array([0, len(flat)], pa.int32()), flat))
        else:
            columns.append(pa.array([value], field.type))
    return pa.table(columns, schema=SCHEMA)
