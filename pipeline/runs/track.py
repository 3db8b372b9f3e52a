"""Tracking: one logical job is one MLflow run, however often it is started.

The driver opens the run and hands its id to the workers; metrics go there by `metric_log`. All that
is written here may be written again: a call whose answer was lost can be repeated.
"""

import getpass
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.entities import Dataset, DatasetInput, InputTag, Param, Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import (
    MLFLOW_DATASET_CONTEXT,
    MLFLOW_GIT_COMMIT,
    MLFLOW_LOGGED_ARTIFACTS,
    MLFLOW_RUN_NOTE,
    MLFLOW_SOURCE_NAME,
    MLFLOW_SOURCE_TYPE,
    MLFLOW_USER,
)

from heliograph.pipeline.cluster.checkout import find_checkout
from heliograph.pipeline.corpus.corpus import Corpus
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.request.recipe import Recipe
from heliograph.pipeline.runs.pictures import draw_attention, draw_curves
from heliograph.pipeline.tracking.server import Client, create_experiment
from heliograph.pipeline.translation.translate import Translator

JOB_TAG = "heliograph.job"
EXPERIMENT = "heliograph"
RELEASE, MODIFIED = "heliograph.version", "heliograph.modified"

DATASET_DIGEST_LENGTH = 36
"""As many characters of a digest MLflow keeps with a dataset."""
SOURCE_LENGTH = 30_000
"""MLflow refuses a dataset's source of more than 65,535 characters. Escaped twice, as it is there,
this grows by a third, or by more where names are full of quotation marks."""
PICTURED_TOKENS = 60
"""Of either side, in a picture of attention: for eight heads that is 27 million pixels."""
TITLE_LENGTH = 200
"""Characters of a sentence above its picture."""


def with_experiment(recipe: Recipe) -> tuple[Recipe, str]:
    """The recipe with the experiment that its run goes to, which it need not name; and that."""
    name = recipe.track.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    tracked = recipe.track.model_copy(update={"experiment": name})
    return recipe.model_copy(update={"track": tracked}), name


def find_job(
    client: Client, experiment: str, job_id: str, *, new: bool = False, run_id: str | None = None
) -> tuple[str, str | None]:
    """The job's name in this experiment, and its run if it was ever started.

    The name is `job_id`, or JOB_ID.2, JOB_ID.3, … for what was begun anew; the newest of these, or
    that of the run asked for.

    Args:
        new: the next name, which has no run yet.
        run_id: the run to go on with.

    Raises:
        RequestError: the run is not one of this job; the experiment was deleted.
    """
    runs = _runs_of(client, experiment, job_id)
    if run_id is not None:
        names = [name for name, run in runs if run.info.run_id == run_id]
        if not names:
            valid = ", ".join(run.info.run_id for _, run in runs) or "none, it was never started"
            raise RequestError(f"--run-id {run_id!r} is no run of job {job_id}; valid: {valid}")
        return names[0], run_id
    if not runs:
        return job_id, None
    newest = max((name for name, _ in runs), key=_attempt)
    if new:
        return f"{job_id}.{_attempt(newest) + 1}", None
    # The oldest: should two starts have raced, both go on in the same one.
    return newest, next(run.info.run_id for name, run in runs if name == newest)


def next_job(name: str) -> str:
    """What the job is called that begins after this one."""
    number = _attempt(name)
    stem = name if number == 1 else name.rpartition(".")[0]
    return f"{stem}.{number + 1}"


def job_before(name: str) -> str | None:
    """The job that `train --new` left behind to begin this one; None: it is the first."""
    number, stem = _attempt(name), name.rpartition(".")[0]
    if number < 2:
        return None
    return stem if number == 2 else f"{stem}.{number - 1}"


def open_run(
    client: Client, experiment: str, job_id: str, name: str, recipe: Mapping[str, Any]
) -> str:
    """Continue the job's run, or open it with the whole recipe as its parameters; its id."""
    run = next((run for name, run in _runs_of(client, experiment, job_id) if name == job_id), None)
    if run is not None:
        client.update_run(run.info.run_id, status="RUNNING")
    else:
        tags = {
            JOB_TAG: job_id,
            MLFLOW_USER: _user(),
            MLFLOW_SOURCE_NAME: "heliograph train",
            MLFLOW_SOURCE_TYPE: "JOB",
            **code_version(),
        }
        run = client.create_run(_experiment_id(client, experiment), run_name=name, tags=tags)
    if not run.data.params:  # new, or an attempt ended between these two calls
        parameters = [Param(key, str(value)) for key, value in _flatten(recipe)]
        client.log_batch(run.info.run_id, params=parameters)
    return str(run.info.run_id)


def _user() -> str:
    """The name of who runs the job; in a container their number may have none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def run_started(client: Client, run_id: str) -> float:
    """When the job's run was first opened, in seconds since 1970."""
    return float(client.get_run(run_id).info.start_time) / 1000


def log_corpus(client: Client, run_id: str, corpus: Corpus, context: str) -> None:
    """Record which data it was: digest, counts, what was dropped and why.

    Args:
        context: what the corpus is for: train, of a mixture train.0, …, validation, or test.
    """
    counts: dict[str, object] = {"seen": corpus.seen, "rows": corpus.rows}
    counts |= {f"dropped.{reason}": count for reason, count in corpus.dropped.items()}
    counts |= corpus.changed
    source = CodeDatasetSource({"identity": _shortened(corpus.identity)}).to_dict()
    dataset = Dataset(
        name=str(corpus.identity.get("location", context))[:500],
        digest=corpus.digest[:DATASET_DIGEST_LENGTH],
        source_type=CodeDatasetSource._get_source_type(),
        source=json.dumps(source),
        profile=json.dumps(counts),
    )
    entry = DatasetInput(dataset, tags=[InputTag(MLFLOW_DATASET_CONTEXT, context)])
    client.log_inputs(run_id, datasets=[entry])
    parameters = {"digest": corpus.digest, **counts}
    client.log_batch(
        run_id,
        params=[Param(f"corpus.{context}.{key}", str(value)) for key, value in parameters.items()],
    )


def _shortened(identity: Mapping[str, Any]) -> str:
    """As JSON that MLflow takes: of many files their number and a hash, not each one's name."""
    short = dict(identity)
    for key in ("files", "location"):
        if len(json.dumps(short)) <= SOURCE_LENGTH:
            break
        if key in short:
            text = json.dumps(short[key], sort_keys=True)
            digest = sha256(text.encode()).hexdigest()
            short[key] = (
                f"{len(short[key])} files with sha256 {digest}, the first of them {text[:200]}"
            )
    return json.dumps(short)


@dataclass(frozen=True)
class Sample:
    """A validation sentence, its reference and what the model makes of it."""

    source: str
    reference: str
    translation: str


def log_samples(client: Client, run_id: str, samples: Sequence[Sample]) -> None:
    """The table of sample translations."""
    if samples:
        columns = {
            "source": [sample.source for sample in samples],
            "reference": [sample.reference for sample in samples],
            "translation": [sample.translation for sample in samples],
        }
        # Not log_table: it adds to a table that is there, and this may be a second attempt.
        rows = list(zip(*columns.values(), strict=True))
        client.log_dict(run_id, {"columns": list(columns), "data": rows}, "samples.json")
        table = {"path": "samples.json", "type": "table"}
        client.set_tag(run_id, MLFLOW_LOGGED_ARTIFACTS, json.dumps([table]))


def log_attention(
    client: Client, run_id: str, translator: Translator, samples: Sequence[Sample]
) -> None:
    """A picture of every decoder layer for each sample: all heads, tokens on both axes; of a long
    sentence its beginning, since a picture grows with the product of both lengths (issue 17, 2)."""
    for number, sample in enumerate(samples, start=1):
        source, target, weights = translator.attention(
            sample.source, sample.translation, first=PICTURED_TOKENS
        )
        for layer, heads in enumerate(weights, start=1):
            title = f"decoder layer {layer}: {sample.source[:TITLE_LENGTH]}"
            figure = draw_attention(title, source, target, heads)
            client.log_figure(run_id, figure, f"attention/sentence-{number}/layer-{layer}.png")


def log_note(client: Client, run_id: str, markdown: str) -> None:
    """The description that MLflow shows on the run's first page."""
    client.set_tag(run_id, MLFLOW_RUN_NOTE, markdown)


def log_curves(client: Client, run_id: str, names: Sequence[str]) -> None:
    """A picture of the named metrics over the run's steps; those never logged are left out."""
    curves = {}
    for name in names:
        points = {metric.step: metric.value for metric in client.get_metric_history(run_id, name)}
        if points:
            curves[name] = sorted(points.items())
    if curves:
        client.log_figure(run_id, draw_curves(curves), "curves.png")


def _runs_of(client: Client, experiment: str, job_id: str) -> list[tuple[str, Run]]:
    """Runs of the job and of what was begun anew, with the names they have; the oldest first."""
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return []
    if found.lifecycle_stage == "deleted":
        raise RequestError(
            f"track.experiment {experiment!r} was deleted: `mlflow experiments restore "
            f"--experiment-id {found.experiment_id}` brings it back, or name another one"
        )
    query = f"tags.`{JOB_TAG}` LIKE '{job_id}%'"
    runs = client.search_runs(
        [found.experiment_id], query, max_results=1000, order_by=["attributes.start_time ASC"]
    )
    named = [(run.data.tags[JOB_TAG], run) for run in runs]
    return [(name, run) for name, run in named if name == job_id or _attempt(name, job_id) > 1]


def _attempt(name: str, job_id: str | None = None) -> int:
    """1 for JOB_ID, 2 for JOB_ID.2, and so on; 0 if it is no name of the job."""
    stem, dot, number = name.rpartition(".")
    if dot and number.isdigit() and (job_id is None or stem == job_id):
        return int(number)
    return 1 if job_id is None or name == job_id else 0


def _experiment_id(client: Client, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    try:
        return create_experiment(client, name)
    except MlflowException:
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)  # another job made it at this very moment


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            pairs += _flatten(value, f"{prefix}{key}.")
        else:
            pairs.append((prefix + key, value))
    return pairs


def code_version() -> dict[str, str]:
    """Of the code that runs: its release if it is installed, its commit where that is known."""
    try:
        release = {RELEASE: version("heliograph")}
    except PackageNotFoundError:
        release = {}
    found = find_checkout(Path(__file__).parent)
    if found is None:
        return release
    return {**release, MLFLOW_GIT_COMMIT: found.commit, MODIFIED: str(found.modified).lower()}
