"""The step list through Ray: every rank gets its share, in order, from any position."""

import re
import time
from itertools import chain
from pathlib import Path

import pytest
import ray
from ray.data import DataIterator
from ray.train import DataConfig

from heliograph.pipeline.corpus.mixture import Mixture
from heliograph.pipeline.request import recipe
from heliograph.pipeline.sources.embedded.grammar import pairs
from heliograph.pipeline.steps.batches import iterate_steps
from heliograph.pipeline.steps.stream import step_stream, stream_options
from heliograph.pipeline.steps.tokenizer import train_tokenizer
from heliograph.pipeline.steps.windows import Position
from tests.pipeline.small_corpus import write_mixture
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("ray_cluster")

BATCHES = recipe.Batches(
    tokens_per_micro_batch=300, tokens_per_step=1000, piece_rows=50, window_pieces=8
)
WINDOWS = 4
SEED = 7

Taken = list[tuple[Position, list[list[int]]]]
"""For each step its position and its micro-batches' pairs."""


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Mixture:
    folder = tmp_path_factory.mktemp("stream") / "corpus"
    return write_mixture(folder, pairs("train")[:1_590], piece_rows=50)


@pytest.fixture(scope="module")
def tokenizer(mixture: Mixture, tmp_path_factory: pytest.TempPathFactory) -> str:
    config = recipe.Tokenizer(vocabulary_size=400)
    return train_tokenizer(mixture, config, str(tmp_path_factory.mktemp("storage")))


@ray.remote(num_cpus=0.5)
def take(
    shard: DataIterator, rank: int, world_size: int, start: Position, steps: int | None
) -> Taken:
    """What a training worker takes; it holds its CPUs as one does."""
    taken: Taken = []
    for step in iterate_steps(shard, rank, world_size, start):
        taken.append((step.position, [batch.pairs.tolist() for batch in step.micro_batches]))
        if len(taken) == steps:
            break
    return taken


def run(
    mixture: Mixture,
    tokenizer: str,
    world_size: int,
    epochs: int | None = 2,
    start: Position | None = None,
    max_steps: int | None = None,
) -> Taken:
    """All ranks' shares put together, as Ray Train would hand them out."""
    start = start or Position()
    stream = step_stream(
        mixture,
        tokenizer,
        BATCHES,
        recipe.Augment(),
        seed=SEED,
        epochs=epochs,
        world_size=world_size,
        start=start,
        max_steps=max_steps,
    )
    config = DataConfig(execution_options=stream_options(), enable_shard_locality=False)
    splits = config.configure({"steps": stream}, world_size, None, None)
    shards = [split["steps"] for split in splits]
    shares = ray.get(
        [
            take.options(num_cpus=1 / world_size).remote(shard, rank, world_size, start, max_steps)
            for rank, shard in enumerate(shards)
        ]
    )
    steps = []
    for places in zip(*shares, strict=True):
        assert len({position for position, _ in places}) == 1
        micro_batches = list(chain.from_iterable(share for _, share in places))
        steps.append((places[0][0], sorted(micro_batches)))
    return steps


@pytest.fixture(scope="module")
def undisturbed(mixture: Mixture, tokenizer: str, ray_cluster: None) -> Taken:
    return run(mixture, tokenizer, world_size=1)


def test_every_pair_comes_once_an_epoch_and_each_epoch_is_another(undisturbed: Taken) -> None:
    orders = []
    for epoch in range(2):
        steps = [
            micro_batches for position, micro_batches in undisturbed if position.epoch == epoch
        ]
        orders.append(list(chain.from_iterable(chain.from_iterable(steps))))
        assert sorted(orders[-1]) == list(range(1_590))
    assert orders[0] != orders[1]
    assert {position.window for position, _ in undisturbed} == set(range(WINDOWS))


@pytest.mark.parametrize("world_size", [2, 3])
def test_any_number_of_ranks_takes_the_same_steps(
    mixture: Mixture, tokenizer: str, undisturbed: Taken, world_size: int
) -> None:
    assert run(mixture, tokenizer, world_size) == undisturbed


@pytest.mark.parametrize(
    "find",
    [
        lambda steps: steps[3],  # inside a window
        lambda steps: next(p for p in steps if p == Position(0, 2, 0)),  # between windows
        lambda steps: next(p for p in steps if p == Position(1, 0, 0)),  # between epochs
        lambda steps: steps[-1],  # the last step of all
    ],
)
def test_a_resumed_stream_is_the_rest_of_the_list(
    mixture: Mixture, tokenizer: str, undisturbed: Taken, find: object
) -> None:
    assert callable(find)
    positions = [position for position, _ in undisturbed]
    start = find(positions)
    rest = undisturbed[positions.index(start) :]
    assert run(mixture, tokenizer, world_size=2, start=start) == rest


def test_a_stream_without_epochs_lasts_for_the_steps(
    mixture: Mixture, tokenizer: str, undisturbed: Taken
) -> None:
    start, steps = undisturbed[5][0], len(undisturbed) - 3
    taken = run(mixture, tokenizer, 2, epochs=None, start=start, max_steps=steps)
    assert taken[: len(undisturbed) - 5] == undisturbed[5:]
    assert [position.epoch for position, _ in taken[-2:]] == [2, 2]


@pytest.mark.parametrize("words", [pytest.param(3, marks=pytest.mark.faults), 300])
def test_a_slow_consumer_is_not_outrun(tokenizer: str, tmp_path: Path, words: int) -> None:
    """Tokenizing epochs in advance would take the CPU from training; but where it takes all, each
    CPU is to have a task, however long the sentences are (issue 15, point 9)."""
    tasks_at_once = 8
    stream = step_stream(
        write_mixture(tmp_path / "corpus", [(words * "a ", words * "b ")] * 400, piece_rows=50),
        tokenizer,
        recipe.Batches(
            tokens_per_micro_batch=1000, tokens_per_step=1000, piece_rows=50, window_pieces=1
        ),
        recipe.Augment(),
        seed=SEED,
        epochs=1_000,
        world_size=1,
        start=Position(),
        max_steps=None,
        cpus_per_task=2 / tasks_at_once,
    )
    (shard,) = stream.streaming_split(1, equal=True)
    steps = iterate_steps(shard, 0, 1, Position())
    next(steps)

    def made() -> int:
        return max(map(int, re.findall(r"(\d+) tasks executed", shard.stats())), default=0)

    wait_until(lambda: made() >= tasks_at_once, shard.stats, pause=0.3)
    before = 0
    while before != (before := made()):
        time.sleep(1.5)
    assert before < 4 * tasks_at_once  # of some thousands
    assert next(steps).position != Position()
    steps.close()
