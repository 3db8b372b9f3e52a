"""The whole way: from a recipe to a registered model, as one job that can be started again."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray
import torch

from pipeline import registry, track
from pipeline.checkpoint import MOMENTS, load_state
from pipeline.checkpoint_store import CHECKSUMS, STATE, CheckpointStore
from pipeline.cluster import capacity, start_ray
from pipeline.corpus import Corpus
from pipeline.errors import JobStopped
from pipeline.evaluate import Scores, evaluate, write_evaluation_set
from pipeline.events import EventLog
from pipeline.model_uri import tracking_uri
from pipeline.placement import check_here, place
from pipeline.plan import TrainingPlan
from pipeline.prepare import Prepared, prepare, storage_of
from pipeline.progress import ProgressLine, open_board
from pipeline.recipe import Recipe
from pipeline.source import check_data
from pipeline.sync import sync_job
from pipeline.tokenizer import Tokenizer
from pipeline.tracking_server import Client, connect, one_line, patiently
from pipeline.train import train
from pipeline.training_state import TrainingState
from pipeline.translate import Translator

RESULT_TAG = "heliograph.result"

CURVES = (
    "train/loss",
    "valid/loss",
    "valid/bleu",
    "valid/chrf",
    "train/learning_rate",
    "train/gradient_norm",
    "train/target_tokens_per_second",
    "train/data_wait",
)


def run_training_job(
    recipe: Recipe, *, new: bool = False, run_id: str | None = None
) -> dict[str, Any]:
    """Train, evaluate and register; or go on where an earlier start of the same job stopped.

    Args:
        new: begin from the beginning in a new run, whatever was done before.
        run_id: go on with this run of the job, not with its newest.

    Returns:
        The result as `heliograph train --json` prints it.

    Raises:
        RequestError: the recipe cannot be run on this data, cluster or tracking server.
        JobStopped: training cannot go on.
        KeyboardInterrupt: it was stopped; started again, it goes on.
    """
    check_data(recipe.data)
    check_here(recipe.cluster)
    client = connect(tracking_uri())
    job, run_id = track.find_job(
        client, recipe.track.experiment, recipe.job_id, new=new, run_id=run_id
    )
    if run_id is not None and (finished := _finished_result(client, run_id)):
        say(f"job {job} is finished already; train --new begins another")
        return finished
    folder = f"{storage_of(recipe)}/jobs/{job}"
    CheckpointStore(f"{folder}/checkpoints").check_writable()
    start_ray()
    placement = place(recipe.cluster, *capacity())

    prepared = prepare(recipe, tokenize=False)
    with _tracked(client, recipe, prepared, job) as run_id:
        plan = _plan(recipe, prepared, client, folder, run_id)
        board = open_board()
        with _eventful(plan), ProgressLine(board):
            state = train(plan, placement, recipe.cluster, board)
        return _end(client, recipe, plan, state, prepared.validation, placement.use_gpu)


def _end(
    client: Client,
    recipe: Recipe,
    plan: TrainingPlan,
    state: TrainingState,
    validation: Corpus,
    use_gpu: bool,
) -> dict[str, Any]:
    """Training is finished: score, register and, if that is asked for, promote."""
    afterwards = (
        f"training is finished, and metrics wait in {plan.spools}: give the same command again "
        "when the server is there, or `heliograph sync` for the metrics alone"
    )
    patiently(lambda: sync_job(plan.tracking_uri, plan.folder), say, afterwards)
    patiently(lambda: client.get_run(plan.run_id), say, afterwards)
    best = _best(plan, state)
    say(f"scoring step {best.step} by beam search and registering it")
    finish = ray.remote(num_cpus=1, num_gpus=1 if use_gpu else 0)(_finish)
    result: dict[str, Any] = ray.get(finish.remote(recipe, plan, state, best, validation))
    if recipe.registry.promote:
        decision = registry.promote(
            recipe.model_name, result["model"]["version"], recipe.registry.margin
        )
        say(decision.reason)
    patiently(lambda: client.set_tag(plan.run_id, RESULT_TAG, json.dumps(result)), say, afterwards)
    return result


def ui_command(result: dict[str, Any]) -> str:
    """What to type to look at a result's run."""
    uri = tracking_uri()
    experiment = connect(uri).get_experiment_by_name(result["experiment"])
    page = f"#/experiments/{experiment.experiment_id}/runs/{result['run_id']}"
    if uri.startswith("sqlite:"):
        return f"mlflow ui --backend-store-uri {uri}   (then http://127.0.0.1:5000/{page})"
    return f"{uri.rstrip('/')}/{page}"


def say(message: str) -> None:
    """To the person watching; standard output belongs to results."""
    print(message, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Best:
    """The weights that the job ends with: a checkpoint, or the average of several."""

    store: str
    step: int


def _plan(
    recipe: Recipe, prepared: Prepared, client: Client, folder: str, run_id: str
) -> TrainingPlan:
    training = prepared.training
    folders = [corpus.folder for corpus in training.corpora]
    return TrainingPlan(
        folder=folder,
        corpora=tuple(zip(folders, training.weights, strict=True)),
        validation_corpus=prepared.validation.folder,
        tokenizer=prepared.tokenizer,
        seed=recipe.seed,
        model=recipe.model,
        batches=recipe.batches,
        augment=recipe.augment,
        train=recipe.train,
        validation=recipe.validation,
        log_every_steps=recipe.track.every_steps,
        threads=recipe.cluster.threads_per_worker,
        recipe_yaml=recipe.to_yaml(),
        tracking_uri=client.tracking_uri,
        run_id=run_id,
        run_started=track.run_started(client, run_id),
    )


@contextmanager
def _tracked(client: Client, recipe: Recipe, prepared: Prepared, job: str) -> Iterator[str]:
    """The job's one run, opened or continued, and marked by how the block ends."""
    run_id = track.open_run(
        client, recipe.track.experiment, job, recipe.name, recipe.model_dump(mode="json")
    )
    status = "FAILED"
    try:
        client.log_text(run_id, recipe.to_yaml(), "recipe.yaml")
        tokenizer = Tokenizer.load(prepared.tokenizer)
        client.log_text(run_id, tokenizer.to_json(), "tokenizer.json")
        corpora = prepared.texts.corpora
        for number, corpus in enumerate(corpora):
            context = "train" if len(corpora) == 1 else f"train.{number}"
            track.log_corpus(client, run_id, corpus, context)
        track.log_corpus(client, run_id, prepared.validation, "validation")
        yield run_id
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        try:
            client.set_terminated(run_id, status)
        except Exception as error:  # what ended the block matters more
            say(f"the run could not be marked {status}: {one_line(error)}")


@contextmanager
def _eventful(plan: TrainingPlan) -> Iterator[None]:
    """Notes in the run that the job was started again, interrupted, or had to stop."""
    log, found = EventLog(plan.tracking_uri, plan.run_id, plan.events), plan.checkpoints.newest()
    if found.step is not None:
        log.log("restart", found.step, f"started again; goes on from step {found.step}")
    try:
        yield
    except (KeyboardInterrupt, JobStopped) as error:
        step = plan.checkpoints.newest().step or 0
        kind = "stop" if isinstance(error, JobStopped) else "interruption"
        log.log(kind, step, f"{error or kind}; the last checkpoint is of step {step}")
        raise
    finally:
        log.close(timeout=5.0)


def _best(plan: TrainingPlan, state: TrainingState) -> Best:
    """The average where it was kept, which is where it was better; else the best checkpoint."""
    if state.step in plan.averages.steps():
        return Best(f"{plan.folder}/averages", state.step)
    assert state.best is not None, "the last step is always validated"
    return Best(f"{plan.folder}/checkpoints", state.best.step)


def _finish(
    recipe: Recipe, plan: TrainingPlan, state: TrainingState, best: Best, validation: Corpus
) -> dict[str, Any]:
    """Score the best weights as anyone will who loads them, and register what was scored.

    Runs as a task of its own, so that it gets a GPU where the workers had one.
    """
    client = connect(plan.tracking_uri)
    torch.set_num_threads(os.cpu_count() or 1)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        CheckpointStore(best.store).fetch(best.step, folder)
        measured = load_state(folder)
        for name in (MOMENTS, STATE, CHECKSUMS):
            (folder / name).unlink()  # the registered model is what it takes to translate
        pairs = validation.head(None)
        digest = write_evaluation_set(folder, pairs)
        translator = Translator.load(folder)
        scores = evaluate(translator, pairs, recipe.evaluate)
        _log_final(client, recipe, plan, scores, pairs, translator)
        version = registry.register(plan.run_id, folder, recipe.model_name, scores, digest)
    measurement = measured.averaged or measured.latest
    assert measurement is not None, "the best weights were validated, or they were not the best"
    result = _result(recipe, plan, state, best, scores, version, measurement.loss)
    track.log_note(client, plan.run_id, _note(result, scores))
    return result


def _log_final(
    client: Client,
    recipe: Recipe,
    plan: TrainingPlan,
    scores: Scores,
    pairs: list[tuple[str, str]],
    translator: Translator,
) -> None:
    """The final scores, and what there is to look at."""
    client.log_metric(plan.run_id, "evaluation/bleu", scores.bleu)
    client.log_metric(plan.run_id, "evaluation/chrf", scores.chrf)
    for metric, signature in scores.signatures.items():
        client.set_tag(plan.run_id, f"heliograph.signature.{metric}", signature)
    samples = [
        track.Sample(source, reference, translation)
        for (source, reference), translation in zip(pairs, scores.hypotheses, strict=True)
    ]
    track.log_samples(client, plan.run_id, samples[: recipe.track.samples])
    track.log_attention(
        client, plan.run_id, translator, samples[: recipe.track.attention_sentences]
    )
    track.log_curves(client, plan.run_id, CURVES)


def _note(result: dict[str, Any], scores: Scores) -> str:
    uri = result["model"]["uri"]
    return (
        f"**BLEU {scores.bleu:.2f}**, chrF {scores.chrf:.2f} on {scores.sentences} validation "
        f"sentences, from step {result['checkpoint'][-8:].lstrip('0')} of {result['steps']}. "
        f"Registered as `{uri}`: try `heliograph translate {uri}`. Where the decoder looks while "
        "it translates is under Artifacts, attention; translations are in samples.json."
    )


def _result(
    recipe: Recipe,
    plan: TrainingPlan,
    state: TrainingState,
    best: Best,
    scores: Scores,
    version: int,
    loss: float,
) -> dict[str, Any]:
    total, name = state.total, recipe.model_name
    return {
        "run_id": plan.run_id,
        "experiment": recipe.track.experiment,
        "checkpoint": f"{best.store}/step-{best.step:08d}",
        "steps": state.step,
        "model": {"name": name, "version": version, "uri": f"models:/{name}/{version}"},
        "metrics": {
            "valid/bleu": scores.bleu,
            "valid/chrf": scores.chrf,
            "valid/loss": loss,
            "train/target_tokens_per_second": total.target_tokens / total.seconds,
            "train/padding": total.padding / total.positions,
            "train/data_wait": total.wait,
            "train/seconds": total.seconds,
        },
    }


def _finished_result(client: Client, run_id: str) -> dict[str, Any] | None:
    """What the job came to, if it ended well before."""
    text = client.get_run(run_id).data.tags.get(RESULT_TAG)
    return json.loads(text) if text else None
