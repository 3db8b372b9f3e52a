"""Killed again and again at random steps, training takes the steps of an undisturbed run."""

import hashlib
import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain, cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray.train

from pipeline import recipe, track
from pipeline.corpus import prepare_corpus
from pipeline.grammar import pairs
from pipeline.placement import Placement
from pipeline.plan import TrainingPlan
from pipeline.progress import open_board
from pipeline.tokenizer import train_tokenizer
from pipeline.tracking_server import connect
from pipeline.train import make_trainer
from pipeline.worker import Worker

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(60 + 60 * 10)]

PAIRS = 600
STEPS = 110
KILLS = int(os.environ.get("HELIOGRAPH_KILLS", "2"))
"""In each of the two tests; `make test-faults` has ten."""
DEADLINE = 60.0
"""Seconds without a step after which a test gives up."""

Records = dict[int, list[dict[str, Any]]]
"""By step: what each rank saw of it, of all the times that it was taken."""


@pytest.fixture(scope="module")
def plan(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> TrainingPlan:
    """Steps of up to 1024 tokens in windows of 120 pairs; an epoch is some 25 steps."""
    folder = tmp_path_factory.mktemp("resume")
    lines = [json.dumps({"source": s, "target": t}) for s, t in pairs("train")[:PAIRS]]
    path = str(folder / "pairs.jsonl")
    Path(path).write_text("\n".join(lines), encoding="utf-8")
    data = recipe.Data(train=path, validation=path)
    corpus = prepare_corpus(path, data, "train", 20, str(folder / "storage"))
    config = recipe.Tokenizer(vocabulary_size=350)
    return TrainingPlan(
        folder=str(folder / "job"),
        corpora=((corpus.folder, 1.0),),
        validation_corpus=corpus.folder,
        tokenizer=train_tokenizer(corpus, config, str(folder / "storage")),
        seed=5,
        model=recipe.Model(width=16, heads=2, encoder_layers=1, decoder_layers=1, feed_forward=32),
        batches=recipe.Batches(
            tokens_per_micro_batch=256, tokens_per_step=1024, piece_rows=20, window_pieces=6
        ),
        augment=recipe.Augment(bpe_dropout=0.1),
        train=recipe.Train(steps=STEPS, warmup_steps=4, checkpoint_steps=4),
        validation=recipe.Validation(every_steps=10_000, sentences=2),
        log_every_steps=1,
        threads=1,
        recipe_yaml="",
        tracking_uri=f"sqlite:///{folder}/mlflow.db",
        run_id="",
        run_started=time.time(),
    )


def recorded_loop(plan: TrainingPlan, board: Any, folder: Path) -> None:
    """The training loop, with a line on disk for each step that was taken."""
    context = ray.train.get_context()
    path = folder / f"{time.time_ns()}-{os.getpid()}.jsonl"
    with Worker(plan, board) as worker, path.open("w", buffering=1) as file:
        for step in worker.steps():
            worker.take(step, wait=0.0)
            weights = hashlib.sha256()
            for parameter in worker.model.parameters():
                weights.update(parameter.detach().numpy().tobytes())
            line = {
                "step": worker.state.step,
                "rank": context.get_world_rank(),
                "world_size": context.get_world_size(),
                "epoch": step.position.epoch,
                "pairs": [batch.pairs.tolist() for batch in step.micro_batches],
                "weights": weights.hexdigest(),
            }
            file.write(json.dumps(line) + "\n")
            if worker.due(*plan.checkpoint_intervals):
                worker.save()
            if plan.is_finished(worker.state):
                break


@contextmanager
def kills(folder: Path, goals: Sequence[int]) -> Iterator[list[int]]:
    """SIGKILL to a random worker whenever the next of these steps was taken; the steps at which it
    happened."""
    done: list[int] = []
    stop = threading.Event()
    draw = random.Random(goals[0])

    def run() -> None:
        for goal in goals:
            victims = wait_for(partial(workers_at, folder, goal), stop)
            if not victims:
                return
            done.append(max(step for step, _ in victims))
            os.kill(draw.choice(victims)[1], signal.SIGKILL)

    killer = threading.Thread(target=run)
    killer.start()
    try:
        yield done
    finally:
        stop.set()
        killer.join()


def workers_at(folder: Path, goal: int) -> list[tuple[int, int]]:
    """Step and pid of each worker that is alive, if one has taken this step."""
    found = []
    for file in folder.glob("*.jsonl"):
        pid, lines = int(file.stem.partition("-")[2]), file.read_text().splitlines()
        if lines and Path(f"/proc/{pid}").exists():
            found.append((json.loads(lines[-1])["step"], pid))
    return found if found and max(found)[0] >= goal else []


def wait_for(condition: Callable[[], list[Any]], stop: threading.Event) -> list[Any]:
    deadline = time.monotonic() + DEADLINE
    while not stop.is_set() and time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    return []


def run(plan: TrainingPlan, workers: int, max_failures: int, folder: Path) -> None:
    placement = Placement(workers, use_gpu=False, cpus_per_worker=1 / workers)
    loop = partial(recorded_loop, plan, open_board(), folder)
    cluster = recipe.Cluster(workers=workers, max_failures=max_failures)
    make_trainer(plan, placement, cluster, loop).fit()


def records(folder: Path) -> Records:
    found: Records = {}
    for file in sorted(folder.glob("*.jsonl")):
        for line in file.read_text().splitlines():
            if line.endswith("}"):  # the last one of a killed worker may be cut off
                record = json.loads(line)
                found.setdefault(record["step"], []).append(record)
    return found


def pairs_of(record: Records) -> dict[int, list[list[int]]]:
    """By step its micro-batches, of all ranks; where a step was taken twice, each time the same."""
    steps = {}
    for step, lines in record.items():
        shares: dict[tuple[int, int], list[list[int]]] = {}
        for line in lines:
            key = (line["world_size"], line["rank"])
            assert shares.setdefault(key, line["pairs"]) == line["pairs"]
        whole = {
            size: sorted(
                chain.from_iterable(share for (s, _), share in shares.items() if s == size)
            )
            for size in {size for size, _ in shares}
            if len([1 for s, _ in shares if s == size]) == size
        }
        assert len({json.dumps(each) for each in whole.values()}) == 1, (step, whole)
        steps[step] = next(iter(whole.values()))
    return steps


def job(plan: TrainingPlan, folder: Path, name: str) -> tuple[TrainingPlan, Path]:
    """The plan as a job of its own, and the folder of its records."""
    client = connect(plan.tracking_uri)
    run_id = track.open_run(client, "experiment", name, name, {})
    (folder / name).mkdir()
    return replace(plan, folder=f"{plan.folder}-{name}", run_id=run_id), folder / name


def losses(plan: TrainingPlan) -> dict[int, float]:
    history = connect(plan.tracking_uri).get_metric_history(plan.run_id, "train/loss")
    assert len(history) == len({metric.step for metric in history})
    return {metric.step: metric.value for metric in history}


@pytest.fixture(scope="module")
def undisturbed(
    plan: TrainingPlan, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Records, dict[int, float]]:
    whole, folder = job(plan, tmp_path_factory.mktemp("undisturbed"), "undisturbed")
    run(whole, workers=2, max_failures=0, folder=folder)
    return records(folder), losses(whole)


def test_an_undisturbed_run_takes_each_pair_once_an_epoch_on_equal_weights(
    undisturbed: tuple[Records, dict[int, float]],
) -> None:
    record = undisturbed[0]
    assert sorted(record) == list(range(1, STEPS + 1))
    epochs: dict[int, list[int]] = {}
    for step, micro_batches in pairs_of(record).items():
        assert len({line["weights"] for line in record[step]}) == 1
        taken = epochs.setdefault(record[step][0]["epoch"], [])
        taken += chain.from_iterable(micro_batches)
    assert len(epochs) > 2
    for epoch in sorted(epochs)[:-1]:
        assert np.sort(epochs[epoch]).tolist() == list(range(PAIRS))


GOALS = sorted(random.Random(1).sample(range(2, STEPS - 3), 2 * KILLS))


def test_killed_workers_are_replaced_and_nothing_differs_by_a_bit(
    plan: TrainingPlan, undisturbed: tuple[Records, dict[int, float]], tmp_path: Path
) -> None:
    disturbed, folder = job(plan, tmp_path, "killed")
    with kills(folder, GOALS[::2]) as killed:
        run(disturbed, workers=2, max_failures=KILLS, folder=folder)
    assert len(killed) == KILLS
    record = records(folder)
    expected, expected_losses = undisturbed
    assert pairs_of(record) == pairs_of(expected)
    for step, lines in record.items():
        assert {line["weights"] for line in lines} == {expected[step][0]["weights"]}
    assert losses(disturbed) == expected_losses


def test_each_restart_may_have_another_number_of_workers(
    plan: TrainingPlan, undisturbed: tuple[Records, dict[int, float]], tmp_path: Path
) -> None:
    disturbed, folder = job(plan, tmp_path, "other-sizes")
    for goal, workers in zip(GOALS[1::2], cycle([1, 3, 2]), strict=False):
        with kills(folder, [goal]) as killed, pytest.raises(ray.train.TrainingFailedError):
            run(disturbed, workers, max_failures=0, folder=folder)
        assert len(killed) == 1
    run(disturbed, workers=3, max_failures=0, folder=folder)
    assert pairs_of(records(folder)) == pairs_of(undisturbed[0])
    assert list(losses(disturbed)) == list(range(1, STEPS + 1))
