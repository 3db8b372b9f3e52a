"""Put together again, the ranks' portions are the step list, whatever the number of ranks."""

from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heliograph.pipeline.corpus.mixture import Mixture
from heliograph.pipeline.request import recipe
from heliograph.pipeline.sources.embedded.grammar import pairs
from heliograph.pipeline.steps.portions import STEPS_PER_PORTION, WindowPlan, portions
from heliograph.pipeline.steps.tokenizer import Tokenizer
from tests.pipeline.small_corpus import write_mixture

BATCHES = recipe.Batches(
    tokens_per_micro_batch=200, tokens_per_step=700, piece_rows=20, window_pieces=9
)
PAIRS = [*pairs("train")[:590], *[("too long " * 60, "zu lang " * 60)] * 10]

Row = dict[str, Any]


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Mixture:
    return write_mixture(tmp_path_factory.mktemp("portions") / "corpus", PAIRS, piece_rows=20)


def rows_of(
    mixture: Mixture, tokenizer: Tokenizer, world_size: int, epoch: int, window: int, start: int = 0
) -> list[Row]:
    plan = WindowPlan(mixture, "", BATCHES, recipe.Augment(), 3, world_size)
    tables = list(portions(plan, tokenizer, epoch, window, start, last=False))
    assert all(table.num_rows == 1 for table in tables)
    return [table.to_pylist()[0] for table in tables]


def steps_of(rows: list[Row], world_size: int) -> list[list[list[int]]]:
    """Each step's micro-batches as lists of pair numbers, all ranks' together, in any order."""
    steps: list[list[list[int]]] = []
    for first in range(0, len(rows), world_size):
        group = rows[first : first + world_size]
        assert [row["rank"] for row in group] == list(range(world_size))
        assert len({(row["first_step"], row["steps"]) for row in group}) == 1
        assert len({tuple(row["step_target_tokens"]) for row in group}) == 1
        some: list[list[list[int]]] = [[] for _ in range(group[0]["steps"])]
        for row in group:
            numbers = iter(row["pairs"])
            micro_batches = iter(
                [next(numbers) for _ in range(size)] for size in row["micro_batch_pairs"]
            )
            for step, count in enumerate(row["step_micro_batches"]):
                some[step] += [next(micro_batches) for _ in range(count)]
        steps += [sorted(step) for step in some]
    return steps


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_the_steps_are_the_same_for_every_number_of_ranks(
    mixture: Mixture, tiny_tokenizer: Tokenizer, world_size: int
) -> None:
    one = [steps_of(rows_of(mixture, tiny_tokenizer, 1, 0, window), 1) for window in range(4)]
    many = [
        steps_of(rows_of(mixture, tiny_tokenizer, world_size, 0, window), world_size)
        for window in range(4)
    ]
    assert many == one
    seen = sorted(chain.from_iterable(chain.from_iterable(chain.from_iterable(many))))
    assert seen == list(range(590))  # each pair once, but for those that are too long


def test_a_row_says_where_it_belongs_and_what_the_step_holds(
    mixture: Mixture, tiny_tokenizer: Tokenizer
) -> None:
    rows = [row for window in range(4) for row in rows_of(mixture, tiny_tokenizer, 2, 1, window)]
    assert (
        sum(row["too_many_tokens"] for row in rows if row["first_step"] == row["rank"] == 0) == 10
    )
    for row in rows:
        assert (row["epoch"], row["world_size"], row["windows_in_epoch"]) == (1, 2, 4)
        assert 0 < row["steps"] <= STEPS_PER_PORTION
        texts = [PAIRS[pair] for pair in row["pairs"]]
        for side, name in enumerate(("source", "target")):
            ids = tiny_tokenizer.encode_batch([text[side] for text in texts])
            assert row[f"{name}_tokens"] == list(chain.from_iterable(ids))
            assert row[f"{name}_lengths"] == [len(each) for each in ids]
    windows = {row["window"]: row["steps_in_window"] for row in rows}
    for window, steps in windows.items():
        own = [row for row in rows if row["window"] == window]
        assert sum(row["steps"] for row in own) == 2 * steps
        tokens = sum(sum(row["target_lengths"]) + len(row["target_lengths"]) for row in own)
        assert sum(sum(row["step_target_tokens"]) for row in own if row["rank"] == 0) == tokens


@settings(max_examples=20)
@given(world_size=st.integers(1, 4), start=st.integers(0, 20))
def test_a_later_start_gives_the_rest(
    mixture: Mixture, tiny_tokenizer: Tokenizer, world_size: int, start: int
) -> None:
    whole = steps_of(rows_of(mixture, tiny_tokenizer, 1, 0, 0), 1)
    rest = rows_of(mixture, tiny_tokenizer, world_size, 0, 0, min(start, len(whole)))
    assert steps_of(rest, world_size) == whole[start:]
    assert rest[0]["first_step"] == min(start, len(whole))


def test_a_start_that_is_not_in_the_list_is_refused(
    mixture: Mixture, tiny_tokenizer: Tokenizer
) -> None:
    with pytest.raises(RuntimeError, match=r"epoch 0, window 0, step 999 is not in the step list"):
        rows_of(mixture, tiny_tokenizer, 1, 0, 0, start=999)


def test_a_window_without_steps_says_so(tiny_tokenizer: Tokenizer, tmp_path: Path) -> None:
    mixture = write_mixture(tmp_path / "corpus", PAIRS[-10:], piece_rows=20)
    rows = rows_of(mixture, tiny_tokenizer, 2, 0, 0)
    assert [(row["rank"], row["steps"], row["steps_in_window"]) for row in rows] == [
        (0, 0, 0),
        (1, 0, 0),
    ]
    assert rows[0]["too_many_tokens"] == 10
