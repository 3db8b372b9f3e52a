"""Steps as tensors: what was dealt and nothing else, or an error."""

from collections.abc import Iterator
from queue import Queue
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from heliograph.pipeline.corpus.mixture import Mixture
from heliograph.pipeline.request import recipe
from heliograph.pipeline.sources.embedded.grammar import pairs
from heliograph.pipeline.steps.batches import (
    MicroBatch,
    Step,
    begun,
    iterate_steps,
    validation_batches,
)
from heliograph.pipeline.steps.portions import WindowPlan, portions
from heliograph.pipeline.steps.tokenizer import END, PAD, START, Tokenizer
from heliograph.pipeline.steps.windows import Position
from tests.pipeline.small_corpus import write_mixture
from tests.waiting import DEADLINE

PAIRS = [("", "leer"), *pairs("train")[:399]]
BATCHES = recipe.Batches(
    tokens_per_micro_batch=150, tokens_per_step=600, piece_rows=20, window_pieces=10
)


class Shard:
    """A rank's share of a stream, without Ray."""

    def __init__(self, tables: list[pa.Table]) -> None:
        self.tables = tables

    def iter_batches(self, **_: Any) -> Iterator[pa.Table]:
        return iter(self.tables)


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Mixture:
    return write_mixture(tmp_path_factory.mktemp("batches") / "corpus", PAIRS, piece_rows=20)


@pytest.fixture(scope="module")
def shards(mixture: Mixture, tiny_tokenizer: Tokenizer) -> list[list[pa.Table]]:
    """Two epochs for two ranks."""
    plan = WindowPlan(mixture, "", BATCHES, recipe.Augment(), 0, 2)
    rows = [
        table
        for epoch in range(2)
        for window in range(2)
        for table in portions(plan, tiny_tokenizer, epoch, window, 0, epoch == window == 1)
    ]
    return [rows[0::2], rows[1::2]]


def steps_of(tables: list[pa.Table], rank: int = 0, start: Position | None = None) -> list[Step]:
    return list(iterate_steps(Shard(tables), rank, 2, start or Position()))


def ids(row: torch.Tensor) -> list[int]:
    return [int(token) for token in row if token != PAD]


def test_the_tensors_hold_the_pairs(
    shards: list[list[pa.Table]], tiny_tokenizer: Tokenizer
) -> None:
    encoded = [tiny_tokenizer.encode_batch(list(pair)) for pair in PAIRS]
    seen: list[int] = []
    totals = []
    for rank in range(2):
        steps = steps_of(shards[rank], rank)
        totals.append([step.target_tokens for step in steps])
        for batch in (batch for step in steps for batch in step.micro_batches):
            seen += batch.pairs.tolist()
            for row, pair in enumerate(batch.pairs):
                source, target = encoded[pair]
                assert ids(batch.source[row]) == [*source, END]
                assert ids(batch.target_in[row]) == [START, *target]
                assert ids(batch.target_out[row]) == [*target, END]
            assert batch.source.dtype == batch.target_in.dtype == torch.int64
            assert batch.target_in.shape == batch.target_out.shape
            longest = max(batch.source.shape[1], batch.target_out.shape[1])
            assert len(batch.pairs) * longest <= BATCHES.tokens_per_micro_batch
            for side in (batch.source, batch.target_out):  # no column is all padding
                assert (side[:, -1] != PAD).any()
    assert sorted(seen) == sorted([*range(400)] * 2)
    assert totals[0] == totals[1]
    tokens = sum(len(target) + 1 for _, target in encoded)
    assert sum(totals[0]) == 2 * tokens


def test_positions_succeed_one_another(shards: list[list[pa.Table]]) -> None:
    steps = steps_of(shards[0])
    places = [step.position for step in steps]
    assert places[0] == Position(0, 0, 0)
    assert [step.next_position for step in steps] == [*places[1:], Position(2, 0, 0)]
    per_window = {
        (p.epoch, p.window): s.steps_in_window for p, s in zip(places, steps, strict=True)
    }
    assert places == [
        Position(epoch, window, step)
        for (epoch, window), count in per_window.items()
        for step in range(count)
    ]
    assert list(per_window) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_batches_of_several_rows_are_the_same(shards: list[list[pa.Table]]) -> None:
    several = steps_of([pa.concat_tables(shards[0])])
    single = steps_of(shards[0])
    assert [step.position for step in several] == [step.position for step in single]
    for one, other in zip(several, single, strict=True):
        for a, b in zip(one.micro_batches, other.micro_batches, strict=True):
            assert torch.equal(a.source, b.source)
            assert torch.equal(a.target_out, b.target_out)


def test_any_deviation_is_an_error(shards: list[list[pa.Table]]) -> None:
    mine, other = shards
    with pytest.raises(RuntimeError, match=r"rank 0 of 2 was to get .* of rank 1 of 2"):
        steps_of([mine[0], other[1], *mine[2:]])
    with pytest.raises(RuntimeError, match=r"step=8\), but the stream gave it .*step=16\)"):
        steps_of([mine[0], *mine[2:]])
    with pytest.raises(RuntimeError, match="the stream gave it"):
        steps_of([mine[0], *mine])
    with pytest.raises(RuntimeError, match=r"was to get Position\(epoch=0, window=1, step=3\)"):
        steps_of(mine, start=Position(0, 1, 3))
    with pytest.raises(RuntimeError, match=r"the stream ended at .* before its last step"):
        steps_of(mine[:-1])
    with pytest.raises(RuntimeError, match=r"the stream gave it .* of rank 0 of 2"):
        list(iterate_steps(Shard(mine), 0, 1, Position()))


def test_begun_steps_are_fetched_before_they_are_asked_for(
    shards: list[list[pa.Table]],
) -> None:
    expected = steps_of(shards[0])
    fetched: Queue[int] = Queue()

    def counted() -> Iterator[Step]:
        for number, step in enumerate(expected):
            fetched.put(number)
            yield step

    steps = begun(counted())
    assert fetched.get(timeout=DEADLINE) == 0
    assert [step.position for step in steps] == [step.position for step in expected]
    assert list(begun(iter(()))) == []


def test_an_error_of_begun_steps_is_raised_where_they_are_asked_for(
    shards: list[list[pa.Table]],
) -> None:
    steps = begun(iterate_steps(Shard(shards[1]), 0, 2, Position()))
    with pytest.raises(RuntimeError, match="the stream gave it"):
        next(steps)


def test_pairs_left_out_are_counted_once(tiny_tokenizer: Tokenizer, tmp_path: Any) -> None:
    long = [("lang " * 200, "long " * 200)]
    mixture = write_mixture(tmp_path / "corpus", [*long * 20, *PAIRS[:20], *long * 20], 20)
    batches = BATCHES.model_copy(update={"window_pieces": 1})
    plan = WindowPlan(mixture, "", batches, recipe.Augment(), 5, 2)

    def shard(epoch: int, window: int, start: int) -> list[pa.Table]:
        windows = [(e, w) for e in range(2) for w in range(3) if (e, w) >= (epoch, window)]
        return [
            table
            for e, w in windows
            for table in list(
                portions(
                    plan, tiny_tokenizer, e, w, start * ((e, w) == windows[0]), (e, w) == (1, 2)
                )
            )[0::2]
        ]

    steps = steps_of(shard(0, 0, 0))
    assert sum(step.too_many_tokens for step in steps if step.position.epoch == 0) <= 40
    left_after = 2 - steps[-1].position.window  # windows that no step comes after
    assert sum(step.too_many_tokens for step in steps) == 80 - 20 * left_after
    middle = steps[1].position
    assert middle.step == 1
    resumed = steps_of(shard(middle.epoch, middle.window, 1), start=middle)
    assert [step.too_many_tokens for step in resumed] == [s.too_many_tokens for s in steps[1:]]


def test_a_corpus_of_which_nothing_fits_is_an_error(
    tiny_tokenizer: Tokenizer, tmp_path: Any
) -> None:
    mixture = write_mixture(tmp_path / "corpus", [("lang " * 200, "long")] * 50, piece_rows=20)
    plan = WindowPlan(
        mixture, "", BATCHES.model_copy(update={"window_pieces": 1}), recipe.Augment(), 5, 2
    )
    tables = [t for w in range(3) for t in portions(plan, tiny_tokenizer, 0, w, 0, w == 2)][0::2]
    with pytest.raises(RuntimeError, match=r"no pair .* fits into batches.tokens_per_micro_batch"):
        steps_of(tables)


def test_validation_batches_hold_every_pair_once(tiny_tokenizer: Tokenizer) -> None:
    long = ("ein sehr langer Satz " * 30, "a very long sentence " * 30)
    some = [*PAIRS[:50], long, *PAIRS[50:90]]
    batches = validation_batches(some, tiny_tokenizer, 100)
    assert sorted(np.concatenate([batch.pairs for batch in batches]).tolist()) == list(range(91))
    widths = [max(batch.source.shape[1], batch.target_in.shape[1]) for batch in batches]
    assert widths == sorted(widths)
    assert batches[-1].pairs.tolist() == [50]  # longer than the budget, and kept
    for batch in batches[:-1]:
        for row, pair in enumerate(batch.pairs):
            source, target = tiny_tokenizer.encode_batch(list(some[pair]))
            assert ids(batch.source[row]) == [*source, END]
            assert ids(batch.target_out[row]) == [*target, END]
    assert validation_batches([], tiny_tokenizer, 100) == []


def test_a_micro_batch_from_lists_is_padded_on_the_right() -> None:
    batch = MicroBatch.from_lists([[5, END], [END]], [[START], [START, 7]], [[END], [7, END]])
    assert batch.source.tolist() == [[5, END], [END, PAD]]
    assert batch.target_in.tolist() == [[START, PAD], [START, 7]]
    assert batch.target_out.tolist() == [[END, PAD], [7, END]]
    assert batch.pairs.tolist() == [0, 1]
    assert torch.equal(batch.to(torch.device("cpu")).source, batch.source)
