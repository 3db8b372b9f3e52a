"""A plan of small steps for training alone, without the command around it."""

import json
import time
from dataclasses import replace
from pathlib import Path

from pipeline import recipe, track
from pipeline.corpus import prepare_corpus
from pipeline.grammar import pairs
from pipeline.plan import TrainingPlan
from pipeline.tokenizer import train_tokenizer
from pipeline.tracking_server import connect

PAIRS = 600
STEPS = 110


def small_plan(folder: Path) -> TrainingPlan:
    """Steps of up to 1024 tokens in windows of 120 pairs; an epoch is some 25 steps."""
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
