"""The whole way: from a recipe to a registered model, as one job that can be started again."""

import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import ray

from heliograph.pipeline.checkpoints.checkpoint_store import CheckpointStore
from heliograph.pipeline.checkpoints.training_state import TrainingState
from heliograph.pipeline.cluster.nodes import check_shared
from heliograph.pipeline.cluster.start import capacity, start_ray
from heliograph.pipeline.corpus.corpus import Corpus
from heliograph.pipeline.corpus.found_data import FoundData
from heliograph.pipeline.job.data import check_contents, check_sources, has_begun
from heliograph.pipeline.job.finish import best_weights, finish
from heliograph.pipeline.promotion.promote import promote
from heliograph.pipeline.registry.versions import is_registered
from heliograph.pipeline.request.errors import JobStopped, one_line
from heliograph.pipeline.request.model_uri import tracking_uri
from heliograph.pipeline.request.placement import idle_workers, place
from heliograph.pipeline.request.recipe import Recipe
from heliograph.pipeline.runs import track
from heliograph.pipeline.runs.progress import ProgressLine, open_board
from heliograph.pipeline.scoring.evaluate import (
    SENTENCES_LOOKED_AT,
    check_references,
    check_tokenizer,
)
from heliograph.pipeline.steps.prepare import Prepared, prepare
from heliograph.pipeline.steps.tokenizer import Tokenizer
from heliograph.pipeline.storage.filesystems import absolute
from heliograph.pipeline.tracking.event_log import EventLog
from heliograph.pipeline.tracking.reach import check_reached
from heliograph.pipeline.tracking.server import Client, connect, open_store, patiently, say
from heliograph.pipeline.tracking.sync import Delivered, deliver_job
from heliograph.pipeline.training.plan import TrainingPlan
from heliograph.pipeline.workers.node_watch import NodeWatch
from heliograph.pipeline.workers.train import train

RESULT_TAG = "heliograph.result"
PREPARED = "the data are prepared: give the same command again when the server is there"
DECISION = "decision"
"""Of the gate, within a result."""


def run_training_job(
    recipe: Recipe,
    found: Mapping[str, FoundData],
    *,
    new: bool = False,
    run_id: str | None = None,
) -> dict[str, Any]:
    """Train, evaluate and register; or go on where an earlier start of the same job stopped.

    Args:
        found: the recipe's data, by `find_recipe_data`.
        new, run_id: as `heliograph.train` has them, and so are what it returns and raises.
    """
    check_tokenizer(recipe.evaluate)
    client = open_store(tracking_uri())
    recipe, experiment = track.with_experiment(recipe)
    job, run_id = track.find_job(client, experiment, recipe.job_id, new=new, run_id=run_id)
    jobs = f"{absolute(recipe.storage)}/jobs"
    while new and has_begun(f"{jobs}/{job}"):  # as another tracking store knows it
        job = track.next_job(job)
    folder = f"{jobs}/{job}"
    untouched = check_sources(folder, found, job)
    finished = _finished_result(client, run_id) if run_id is not None else None
    if finished and untouched:
        return _decided(client, recipe, finished)
    CheckpointStore(f"{folder}/checkpoints").check_writable()
    start_ray()
    placement = place(recipe.cluster, capacity())
    check_shared(absolute(recipe.storage), "storage")
    check_reached(client.tracking_uri)
    if (idle := idle_workers(recipe.batches, placement.workers)) is not None:
        say(idle)

    prepared = prepare(recipe, found, tokenize=False)
    check_contents(folder, found, prepared, job)
    if finished:
        return _decided(client, recipe, finished)
    references = prepared.validation.head(SENTENCES_LOOKED_AT)
    for told in (*prepared.told, *check_references(references, recipe.evaluate)):
        say(told)
    with _tracked(client, experiment, recipe, prepared, job) as run_id:
        plan = plan_of(recipe, prepared, client, folder, run_id)
        board = open_board()
        with _eventful(plan), NodeWatch(plan), ProgressLine(board):
            state = train(plan, placement, recipe.cluster, board)
        result = _end(client, recipe, plan, state, prepared.evaluation, placement.use_gpu)
    return _decided(client, recipe, result)


def _end(
    client: Client,
    recipe: Recipe,
    plan: TrainingPlan,
    state: TrainingState,
    evaluation: Corpus,
    use_gpu: bool,
) -> dict[str, Any]:
    """Training is finished: score and register, and keep what it came to with the run."""
    afterwards = (
        f"training is finished, and metrics wait in {plan.spools}: give the same command again "
        "when the server is there, or `heliograph sync` for the metrics alone"
    )
    best = best_weights(plan, state)
    delivered = Delivered()
    patiently(lambda: deliver_job(plan.tracking_uri, plan.folder, delivered), say, afterwards)
    for refused in delivered.refused:
        say(f"metrics that the tracking server does not take stay in {plan.spools}: {refused}")
    patiently(lambda: client.get_run(plan.run_id), say, afterwards)
    say(f"scoring step {best.step} by beam search and registering it")
    task = ray.remote(num_cpus=1, num_gpus=1 if use_gpu else 0)(finish)

    def finished() -> dict[str, Any]:
        result: dict[str, Any] = ray.get(task.remote(recipe, plan, state, best, evaluation))
        return result

    result = patiently(finished, say, afterwards)
    patiently(lambda: client.set_tag(plan.run_id, RESULT_TAG, json.dumps(result)), say, afterwards)
    return result


def _decided(client: Client, recipe: Recipe, result: dict[str, Any]) -> dict[str, Any]:
    """The result of a finished job, with what the gate said of it where the recipe wants to know.

    It is asked once: what was decided since, by whomever, is in the model's history.
    """
    if not recipe.registry.promote or DECISION in result:
        return result
    name, version = result["model"]["name"], result["model"]["version"]
    decision = asdict(promote(name, version, recipe.registry.gate))
    say(decision["reason"])
    del decision["verdicts"]  # in the model's history, and more than a tag holds
    result = {**result, DECISION: decision}
    tag, afterwards = json.dumps(result), "the gate has decided, as `heliograph history` shows"
    patiently(lambda: client.set_tag(result["run_id"], RESULT_TAG, tag), say, afterwards)
    return result


def ui_command(result: dict[str, Any]) -> str:
    """What to type to look at a result's run."""
    uri = tracking_uri()
    experiment = connect(uri).get_experiment_by_name(result["experiment"])
    page = f"#/experiments/{experiment.experiment_id}/runs/{result['run_id']}"
    if uri.startswith("sqlite:"):
        return f"mlflow ui --backend-store-uri {shlex.quote(uri)}   (then http://127.0.0.1:5000/{page})"
    return f"{uri.rstrip('/')}/{page}"


def plan_of(
    recipe: Recipe, prepared: Prepared, client: Client, folder: str, run_id: str
) -> TrainingPlan:
    """What the workers of this job are to do, in this folder, for this run."""
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
        evaluate=recipe.evaluate,
        log_every_steps=recipe.track.every_steps,
        threads=recipe.cluster.threads_per_worker,
        recipe_yaml=recipe.to_yaml(),
        tracking_uri=client.tracking_uri,
        run_id=run_id,
        run_started=patiently(lambda: track.run_started(client, run_id), say, PREPARED),
    )


@contextmanager
def _tracked(
    client: Client, experiment: str, recipe: Recipe, prepared: Prepared, job: str
) -> Iterator[str]:
    """The job's one run, opened or continued, and marked by how the block ends.

    A server that goes away after it was there at first is waited for: the data may have taken
    hours.
    """
    parameters = recipe.model_dump(mode="json")

    def open_run() -> str:
        return track.open_run(client, experiment, job, recipe.name, parameters)

    run_id = patiently(open_run, say, PREPARED)
    status = "FAILED"
    try:
        patiently(lambda: _log_inputs(client, run_id, recipe, prepared), say, PREPARED)
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


def _log_inputs(client: Client, run_id: str, recipe: Recipe, prepared: Prepared) -> None:
    """What the job is made from; again as often as it is called."""
    client.log_text(run_id, recipe.to_yaml(), "recipe.yaml")
    tokenizer = Tokenizer.load(prepared.tokenizer)
    client.log_text(run_id, tokenizer.to_json(), "tokenizer.json")
    corpora = prepared.texts.corpora
    for number, corpus in enumerate(corpora):
        context = "train" if len(corpora) == 1 else f"train.{number}"
        track.log_corpus(client, run_id, corpus, context)
    track.log_corpus(client, run_id, prepared.validation, "validation")
    if prepared.test is not None:
        track.log_corpus(client, run_id, prepared.test, "test")


@contextmanager
def _eventful(plan: TrainingPlan) -> Iterator[None]:
    """Notes in the run that the job was started again, interrupted, or had to stop."""
    log, found = EventLog(plan.tracking_uri, plan.run_id, plan.events), plan.checkpoints.newest()
    if found.step is not None:
        say(f"goes on from the checkpoint of step {found.step}")
        log.log("restart", found.step, f"started again; goes on from step {found.step}")
    try:
        yield
    except (KeyboardInterrupt, JobStopped) as error:
        step = plan.checkpoints.newest().step or 0
        kind = "stop" if isinstance(error, JobStopped) else "interruption"
        what = str(error) or "interrupted by the user"
        log.log(kind, step, f"{what}; the last checkpoint is of step {step}")
        raise
    finally:
        log.close(timeout=2.0)


def _finished_result(client: Client, run_id: str) -> dict[str, Any] | None:
    """What the job came to, if it ended well before and its version is still there."""
    tags = client.get_run(run_id).data.tags
    if RESULT_TAG not in tags:
        return None
    result: dict[str, Any] = json.loads(tags[RESULT_TAG])
    model = result["model"]
    if not is_registered(client, model["name"], model["version"]):
        say(f"{model['uri']} is no longer registered; registering it again")
        return None
    say(f"job {tags[track.JOB_TAG]} is finished already; train --new begins another")
    return result
