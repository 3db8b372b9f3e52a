"""Training alone, in small steps, without the command around it: plans, and what came of them."""

import json
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from safetensors.torch import load_file

from heliograph.pipeline.corpus.corpus import prepare_corpus
from heliograph.pipeline.corpus.found_data import find_data
from heliograph.pipeline.request import recipe
from heliograph.pipeline.request.data import Data
from heliograph.pipeline.request.placement import Placement
from heliograph.pipeline.runs import track
from heliograph.pipeline.runs.progress import open_board
from heliograph.pipeline.sources.embedded.grammar import pairs
from heliograph.pipeline.steps.tokenizer import train_tokenizer
from heliograph.pipeline.tracking.server import connect
from heliograph.pipeline.training.plan import TrainingPlan
from heliograph.pipeline.workers.trainer import make_trainer
from tests.local_ranks import LocalWorker, train_locally
from tests.recorded_job import (
    RecordedWorker,
    Records,
    digest,
    pairs_of,
    recorded_loop,
    records,
)
from tests.scraper import Scraper, scraping
from tests.waiting import wait_until

PAIRS = 600
STEPS = 110


def small_plan(folder: Path) -> TrainingPlan:
    """Steps of up to 1024 tokens in windows of 120 pairs; an epoch is some 25 steps."""
    lines = [json.dumps({"source": s, "target": t}) for s, t in pairs("train")[:PAIRS]]
    path = str(folder / "pairs.jsonl")
    Path(path).write_text("\n".join(lines), encoding="utf-8")
    data = Data(train=path, validation=path)
    storage = str(folder / "storage")
    corpus = prepare_corpus(find_data(path, data, "train", storage), 20, storage)
    config = recipe.Tokenizer(vocabulary_size=350)
    return TrainingPlan(
        folder=str(folder / "job"),
        corpora=((corpus.folder, 1.0),),
        validation_corpus=corpus.folder,
        tokenizer=train_tokenizer(corpus, config, storage),
        seed=5,
        model=recipe.Model(width=16, heads=2, encoder_layers=1, decoder_layers=1, feed_forward=32),
        batches=recipe.Batches(
            tokens_per_micro_batch=256, tokens_per_step=1024, piece_rows=20, window_pieces=6
        ),
        augment=recipe.Augment(bpe_dropout=0.1),
        train=recipe.Train(steps=STEPS, warmup_steps=4, checkpoint_steps=4),
        validation=recipe.Validation(every_steps=40, sentences=2),
        evaluate=recipe.Evaluate(),
        log_every_steps=1,
        threads=1,
        recipe_yaml="",
        tracking_uri=f"sqlite:///{folder}/mlflow.db",
        run_id="",
        run_started=time.time(),
    )


def job(plan: TrainingPlan, name: str) -> TrainingPlan:
    """The plan as a job of its own."""
    client = connect(plan.tracking_uri)
    run_id = track.open_run(client, "experiment", name, name, {})
    return replace(plan, folder=f"{plan.folder}-{name}", run_id=run_id)


def losses(plan: TrainingPlan) -> dict[int, float]:
    """By step, as the run has them; each of them once."""
    history = connect(plan.tracking_uri).get_metric_history(plan.run_id, "train/loss")
    assert len(history) == len({metric.step for metric in history})
    return {metric.step: metric.value for metric in history}


def weights(plan: TrainingPlan) -> str:
    """All bits of the newest checkpoint's weights, as a digest."""
    newest = plan.checkpoints.steps()[-1]
    return digest(load_file(f"{plan.folder}/checkpoints/step-{newest:08d}/model.safetensors"))


class LocalRecordedWorker(LocalWorker, RecordedWorker):
    """A local rank that writes down what each step took and left."""


def train_recorded(plan: TrainingPlan, workers: int, max_failures: int) -> None:
    """To the plan's end; the workers write down what each step took and left."""
    placement = Placement(workers, use_gpu=False, cpus_per_worker=1 / workers)
    loop = partial(recorded_loop, plan, open_board())
    cluster = recipe.Cluster(workers=workers, max_failures=max_failures)
    make_trainer(plan, placement, cluster, loop).fit()


@dataclass(frozen=True)
class Undisturbed:
    """A job that nothing befell, for all tests that compare one with it that something did."""

    plan: TrainingPlan
    """Without a folder and a run of its own: `job` gives it these."""
    records: Records
    losses: dict[int, float]
    weights: str
    exported: Scraper


def train_undisturbed(plan: TrainingPlan, folder: Path) -> Undisturbed:
    """On two ranks, without Ray Train, which has no part in what they come to."""
    whole = job(plan, "undisturbed")
    with scraping(Path(whole.folder).name) as scraper:

        def is_exported() -> bool:
            return list(scraper.of("ray_heliograph_steps_total").values()) == [STEPS, STEPS]

        def look() -> None:
            wait_until(is_exported, lambda: scraper.of("ray_heliograph_steps_total"))

        train_locally(whole, 2, folder, LocalRecordedWorker, look)
    return Undisturbed(plan, records(whole.folder), losses(whole), weights(whole), scraper)


def assert_same(disturbed: TrainingPlan, undisturbed: Undisturbed) -> None:
    """To the last bit, after every step and on every rank."""
    record = records(disturbed.folder)
    assert pairs_of(record) == pairs_of(undisturbed.records)
    for step, lines in record.items():
        assert {line["weights"] for line in lines} == {undisturbed.records[step][0]["weights"]}
    assert losses(disturbed) == undisturbed.losses
    assert weights(disturbed) == undisturbed.weights
