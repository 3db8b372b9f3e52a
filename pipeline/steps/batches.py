"""What a training worker eats: the steps of its stream, checked one by one, as padded tensors.

`stream` makes the rows; here they are only collated. Every row says which rank and which steps it
is, and `iterate_steps` refuses any other than the next one: should Ray ever deal rows differently,
that is an error and never silently other data.
"""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from ray.data import DataIterator
from torch import Tensor

from heliograph.pipeline.steps.tokenizer import END, PAD, START, Tokenizer
from heliograph.pipeline.steps.tokens import Ragged
from heliograph.pipeline.steps.windows import Numbers, Position, cut_micro_batches


@dataclass(frozen=True)
class MicroBatch:
    """Pairs that go through the model together, padded to the longest on each side."""

    source: Tensor
    """[B, S] int64: tokens, end."""
    target_in: Tensor
    """[B, T] int64: start, tokens."""
    target_out: Tensor
    """[B, T] int64: tokens, end."""
    pairs: Numbers
    """[B]: the pairs' numbers in the corpus."""
    padded: bool
    """Whether any source is; known here, where a GPU would have to be waited for."""

    @classmethod
    def from_lists(
        cls,
        source: Sequence[Sequence[int]],
        target_in: Sequence[Sequence[int]],
        target_out: Sequence[Sequence[int]],
    ) -> "MicroBatch":
        """From complete id sequences, special tokens included; the pairs are numbered from 0."""
        sides = []
        for sequences in (source, target_in, target_out):
            ids = [torch.tensor(list(sequence), dtype=torch.int64) for sequence in sequences]
            sides.append(torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=PAD))
        padded = len({len(sequence) for sequence in source}) > 1
        return cls(sides[0], sides[1], sides[2], np.arange(len(source)), padded)

    def to(self, device: torch.device) -> "MicroBatch":
        """The same on another device. Copies to a GPU do not wait, which takes pinned memory."""
        sides = [self.source, self.target_in, self.target_out]
        if device.type == "cuda":
            sides = [side.pin_memory() for side in sides]
        source, target_in, target_out = (side.to(device, non_blocking=True) for side in sides)
        return MicroBatch(source, target_in, target_out, self.pairs, self.padded)


def empty_micro_batch() -> MicroBatch:
    """One pair whose target is all padding: a loss of zero with gradients of zero.

    A rank without a share of a step takes this one through, so that it takes part in the step's one
    synchronisation.
    """
    return MicroBatch.from_lists([[END]], [[START]], [[PAD]])


@dataclass(frozen=True)
class Step:
    """One rank's share of an optimizer step."""

    position: Position
    next_position: Position
    steps_in_window: int
    windows_in_epoch: int
    target_tokens: int
    """Of the whole step, over all ranks, ends included: what the loss is divided by."""
    micro_batches: list[MicroBatch]
    """Maybe none."""
    too_many_tokens: int
    """Pairs left out of the step list between the step before and this one, because a side has more
    than tokens_per_micro_batch tokens. Summed over an epoch: of the epoch."""

    @property
    def own_target_tokens(self) -> int:
        """Of this rank's micro-batches, ends included."""
        return sum(int((batch.target_out != PAD).sum()) for batch in self.micro_batches)

    @property
    def epochs_done(self) -> float:
        """How many epochs are gone through after this step."""
        windows = self.position.window + (self.position.step + 1) / self.steps_in_window
        return self.position.epoch + windows / self.windows_in_epoch

    def described(self) -> str:
        """This rank's micro-batches, for messages."""
        shapes = [
            f"{len(batch.pairs)} pairs of {batch.source.shape[1]} source and "
            f"{batch.target_in.shape[1]} target tokens (number {batch.pairs[0]} of the corpus and "
            "on)"
            for batch in self.micro_batches
        ]
        return ", ".join(shapes) or "no pairs on this rank"


def iterate_steps(
    shard: DataIterator, rank: int, world_size: int, start: Position
) -> Iterator[Step]:
    """This rank's share of each step from `start` on, in the order of the step list.

    Raises:
        RuntimeError: the stream does not hold exactly the steps that come next, or no pair of the
            corpus fits into a micro-batch.
    """
    expected, left_out, empty_windows, last = start, 0, 0, False
    for table in shard.iter_batches(batch_size=None, batch_format="pyarrow"):
        for row in _rows(table):
            found = Position(row["epoch"], row["window"], row["first_step"])
            if (row["rank"], row["world_size"], found) != (rank, world_size, expected):
                raise RuntimeError(
                    f"rank {rank} of {world_size} was to get {expected}, but the stream gave it "
                    f"{found} of rank {row['rank']} of {row['world_size']}: Ray Data has not kept "
                    "the order (see pipeline/steps/stream.py)"
                )
            if row["first_step"] == 0:
                left_out += row["too_many_tokens"]
            empty_windows = empty_windows + 1 if row["steps_in_window"] == 0 else 0
            if empty_windows == row["windows_in_epoch"]:
                raise RuntimeError(
                    "no pair of the corpus fits into batches.tokens_per_micro_batch: all "
                    f"{left_out} have a side with more tokens"
                )
            for step in _steps(row, left_out):
                left_out = 0
                yield step
            expected = _after(row, row["first_step"] + row["steps"])
            last = row["last"]
    if not last:
        raise RuntimeError(f"the stream ended at {expected}, before its last step")


def begun(steps: Iterator[Step]) -> Iterator[Step]:
    """The steps, the first of which is fetched in the background from this call on."""
    first: Future[list[Step]] = Future()

    def fetch() -> None:
        try:
            first.set_result(list(islice(steps, 1)))
        except BaseException as error:  # to be raised where the step is asked for
            first.set_exception(error)

    # Of a daemon, so that no process waits at its end for a step that does not come.
    threading.Thread(target=fetch, name="first-step", daemon=True).start()

    def all_of_them() -> Iterator[Step]:
        yield from first.result()
        yield from steps

    return all_of_them()


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Each row with its lists as arrays, without copies."""
    for number in range(table.num_rows):
        row = table.slice(number, 1).combine_chunks()
        yield {
            field.name: row[field.name].chunk(0).flatten().to_numpy(zero_copy_only=False)
            if pa.types.is_list(field.type)
            else row[field.name][0].as_py()
            for field in table.schema
        }


def _after(row: dict[str, Any], step: int) -> Position:
    """The position of this step of the row's window, or what comes after the window."""
    epoch, window = row["epoch"], row["window"]
    if step < row["steps_in_window"]:
        return Position(epoch, window, step)
    if window + 1 < row["windows_in_epoch"]:
        return Position(epoch, window + 1, 0)
    return Position(epoch + 1, 0, 0)


def _steps(row: dict[str, Any], left_out: int) -> Iterator[Step]:
    source = Ragged(row["source_tokens"], row["source_lengths"])
    target = Ragged(row["target_tokens"], row["target_lengths"])
    micro_batches = _collate(source, target, row["pairs"], row["micro_batch_pairs"])
    for number in range(row["steps"]):
        step = row["first_step"] + number
        yield Step(
            position=Position(row["epoch"], row["window"], step),
            next_position=_after(row, step + 1),
            steps_in_window=row["steps_in_window"],
            windows_in_epoch=row["windows_in_epoch"],
            target_tokens=int(row["step_target_tokens"][number]),
            micro_batches=[next(micro_batches) for _ in range(row["step_micro_batches"][number])],
            too_many_tokens=left_out if number == 0 else 0,
        )


def _collate(
    source: Ragged, target: Ragged, pairs: Numbers, sizes: Sequence[int]
) -> Iterator[MicroBatch]:
    """Micro-batches of consecutive pairs, `sizes` of them each."""
    source_parts, target_parts = _parts(source, sizes), _parts(target, sizes)
    end = 0
    for size in sizes:
        begin, end = end, end + size
        source_part, target_part = next(source_parts), next(target_parts)
        yield MicroBatch(
            source=_padded(source_part, end=True),
            target_in=_padded(target_part, end=False),
            target_out=_padded(target_part, end=True),
            pairs=pairs[begin:end],
            padded=bool(source_part.lengths.min() < source_part.lengths.max()),
        )


def _parts(ragged: Ragged, sizes: Sequence[int]) -> Iterator[Ragged]:
    bounds = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    ends = np.concatenate([[0], np.cumsum(ragged.lengths, dtype=np.int64)])[bounds]
    for i in range(len(sizes)):
        yield Ragged(
            ragged.tokens[ends[i] : ends[i + 1]], ragged.lengths[bounds[i] : bounds[i + 1]]
        )


def _padded(ragged: Ragged, end: bool) -> Tensor:
    """[B, longest + 1]: each sequence with END behind it, or with START before it."""
    rows, width = len(ragged.lengths), int(ragged.lengths.max())
    ids: NDArray[np.int64] = np.full((rows, width + 1), PAD, dtype=np.int64)
    tokens = ids[:, :width] if end else ids[:, 1:]
    tokens[np.arange(width) < ragged.lengths[:, None]] = ragged.tokens
    ids[np.arange(rows), ragged.lengths if end else 0] = END if end else START
    return torch.from_numpy(ids)


def validation_batches(
    pairs: Sequence[tuple[str, str]], tokenizer: Tokenizer, tokens_per_micro_batch: int
) -> list[MicroBatch]:
    """All pairs in micro-batches of similar length, the shortest first; the same in any process.

    A pair that is longer than the budget is kept: then the budget is that pair's length.
    """
    if not pairs:
        return []
    source, target = (Ragged.encode(tokenizer, [pair[side] for pair in pairs]) for side in (0, 1))
    longest = int(max(source.lengths.max(), target.lengths.max())) + 1
    budget = max(tokens_per_micro_batch, longest)
    groups = cut_micro_batches(source.lengths + 1, target.lengths + 1, budget)
    rows = np.concatenate(groups)
    sizes = [len(group) for group in groups]
    return list(_collate(source.take(rows), target.take(rows), rows, sizes))
