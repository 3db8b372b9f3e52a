"""What a finished training comes to: the best weights, scored and registered."""

import math
import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from heliograph.pipeline.checkpoints.checkpoint import MOMENTS, load_state
from heliograph.pipeline.checkpoints.checkpoint_store import CHECKSUMS, STATE, CheckpointStore
from heliograph.pipeline.checkpoints.model_folder import WEIGHTS
from heliograph.pipeline.checkpoints.training_state import TrainingState
from heliograph.pipeline.corpus.corpus import Corpus
from heliograph.pipeline.registry import registry
from heliograph.pipeline.registry.model_card import ModelCard, Weights
from heliograph.pipeline.registry.provenance import read_provenance
from heliograph.pipeline.request.errors import JobStopped, one_line
from heliograph.pipeline.request.recipe import Recipe
from heliograph.pipeline.runs import track
from heliograph.pipeline.runs.for_people import for_people
from heliograph.pipeline.scoring.evaluate import (
    Scores,
    evaluate,
    looks_tokenized,
    write_evaluation_set,
)
from heliograph.pipeline.tracking.event_log import deliver_events
from heliograph.pipeline.tracking.events import log_event, read_events
from heliograph.pipeline.tracking.server import Client, connect, say
from heliograph.pipeline.training.plan import TrainingPlan
from heliograph.pipeline.translation.translate import Translator

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


@dataclass(frozen=True)
class Best:
    """The weights that the job ends with: a checkpoint, or the average of several."""

    store: str
    step: int


def best_weights(plan: TrainingPlan, state: TrainingState) -> Best:
    """The average where it was kept, which is where it was better; else the best checkpoint that
    is sound.

    Raises:
        JobStopped: none is, or the best ones' loss is no number.
    """
    measured = state.averaged or state.best
    if measured is not None and not math.isfinite(measured.loss):
        raise JobStopped(
            f"the loss on the validation set is {measured.loss} at step {measured.step}, and "
            "nothing was better: no model is registered. Lower train.learning_rate or raise "
            "train.warmup_steps, and begin anew with train --new"
        )
    averages = [state.step] if state.step in plan.averages.steps() else []
    candidates = [Best(f"{plan.folder}/averages", step) for step in averages]
    candidates += [Best(f"{plan.folder}/checkpoints", step) for step in plan.checkpoints.best()]
    for best in candidates:
        damage = CheckpointStore(best.store).damage(best.step)
        if damage is None:
            return best
        message = f"the weights of step {best.step} are damaged, the next best are used ({damage})"
        print(message, file=sys.stderr, flush=True)
        log_event(plan.events, plan.run_id, "damaged", state.step, message)
    raise JobStopped(
        f"training is finished, but no sound checkpoint with a score is in {plan.folder}; "
        "train --new begins again"
    )


def finish(
    recipe: Recipe, plan: TrainingPlan, state: TrainingState, best: Best, evaluation: Corpus
) -> dict[str, Any]:
    """Score the best weights as anyone will who loads them, and register what was scored.

    To be called in a process of its own, one with a GPU where the workers had one. It may be called
    again: the same weights from the same run are one version.

    Returns:
        The result as `heliograph train --json` prints it.
    """
    client = connect(plan.tracking_uri)
    torch.set_num_threads(os.cpu_count() or 1)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        CheckpointStore(best.store).fetch(best.step, folder)
        measured = load_state(folder)
        for name in (MOMENTS, STATE, CHECKSUMS):
            (folder / name).unlink()  # the registered model is what it takes to translate
        pairs = evaluation.head(None)
        digest = write_evaluation_set(folder, pairs)
        if (told := looks_tokenized([target for _, target in pairs])) is not None:
            _warn(plan, told)
        translator = Translator.load(folder)
        scores = evaluate(translator, pairs, recipe.evaluate)
        _log_scores(client, plan, scores)
        card = None
        with for_people("the model card", partial(_warn, plan)):
            card = ModelCard(
                recipe,
                read_provenance(client, plan.run_id, folder),
                _weights(folder, translator, best, plan),
                state,
                scores,
                pairs,
            )
            card.page()
        version = registry.register(
            plan.run_id,
            folder,
            recipe.model_name,
            scores,
            digest,
            translator.device.type,
            card,
        )
        _log_pictures(client, recipe, plan, scores, pairs, translator)
    measurement = measured.averaged or measured.latest
    assert measurement is not None, "the best weights were validated, or they were not the best"
    result = _result(recipe, plan, state, best, scores, version, measurement.loss)
    with for_people("the run's description", partial(_warn, plan)):
        track.log_note(client, plan.run_id, _note(recipe, result, scores))
    with for_people("the list of events", say):  # what was warned of above
        deliver_events(client, plan.run_id, read_events(plan.events))
    return result


def _weights(folder: Path, translator: Translator, best: Best, plan: TrainingPlan) -> Weights:
    return Weights(
        parameters=sum(parameter.numel() for parameter in translator.model.parameters()),
        bytes=(folder / WEIGHTS).stat().st_size,
        vocabulary=translator.tokenizer.vocabulary_size,
        step=best.step,
        averaged=best.store == f"{plan.folder}/averages",
    )


def _log_scores(client: Client, plan: TrainingPlan, scores: Scores) -> None:
    client.log_metric(plan.run_id, "evaluation/bleu", scores.bleu)
    client.log_metric(plan.run_id, "evaluation/chrf", scores.chrf)
    for metric, signature in scores.signatures.items():
        client.set_tag(plan.run_id, f"heliograph.signature.{metric}", signature)


def _log_pictures(
    client: Client,
    recipe: Recipe,
    plan: TrainingPlan,
    scores: Scores,
    pairs: list[tuple[str, str]],
    translator: Translator,
) -> None:
    """What there is to look at; after the model is registered, which it must not keep waiting."""
    samples = [
        track.Sample(source, reference, translation)
        for (source, reference), translation in zip(pairs, scores.hypotheses, strict=True)
    ]
    warn = partial(_warn, plan)
    with for_people("the table of samples", warn):
        track.log_samples(client, plan.run_id, samples[: recipe.track.samples])
    with for_people("the pictures of attention", warn):
        track.log_attention(
            client, plan.run_id, translator, samples[: recipe.track.attention_sentences]
        )
    with for_people("the picture of the curves", warn):
        track.log_curves(client, plan.run_id, CURVES)


def _warn(plan: TrainingPlan, message: str) -> None:
    """To who watches, and as an event of the run."""
    say(message)
    step = plan.checkpoints.newest().step or 0
    try:
        log_event(plan.events, plan.run_id, "warning", step, message)
    except OSError as error:
        say(f"nor can that be kept as an event: {one_line(error)}")


def _note(recipe: Recipe, result: dict[str, Any], scores: Scores) -> str:
    uri = result["model"]["uri"]
    return (
        f"**BLEU {scores.bleu:.2f}**, chrF {scores.chrf:.2f} on {scores.sentences} "
        f"{recipe.data.scored_on} sentences, from step "
        f"{result['checkpoint'][-8:].lstrip('0')} of {result['steps']}. "
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
    scored_on = {"validation": "valid", "test": "test"}[recipe.data.scored_on]
    return {
        "run_id": plan.run_id,
        "experiment": recipe.track.experiment,
        "checkpoint": f"{best.store}/step-{best.step:08d}",
        "steps": state.step,
        "model": {"name": name, "version": version, "uri": f"models:/{name}/{version}"},
        "metrics": {
            f"{scored_on}/bleu": scores.bleu,
            f"{scored_on}/chrf": scores.chrf,
            "valid/loss": loss,
            "train/target_tokens_per_second": total.target_tokens / total.seconds,
            "train/padding": total.padding / total.positions,
            "train/data_wait": total.wait,
            "train/seconds": total.seconds,
        },
    }
