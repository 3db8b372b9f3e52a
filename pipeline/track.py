"""Tracking: one logical job is one MLflow run, however often it is started.

The driver opens the run and hands its id to the workers; metrics go there by `metric_log`. All that
is written here may be written again: a call whose answer was lost can be repeated.
"""

import getpass
import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.entities import Dataset, DatasetInput, InputTag, Param, Run, RunStatus
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

from pipeline import metric_log, node_monitor
from pipeline.corpus import Corpus
from pipeline.errors import RequestError
from pipeline.pictures import draw_attention, draw_curves
from pipeline.tracking_server import Client as Client
from pipeline.tracking_server import connect as connect
from pipeline.tracking_server import one_line
from pipeline.translate import Translator

JOB_TAG = "heliograph.job"


def find_run(client: Client, experiment: str, job_id: str) -> str | None:
    """The id of the job's run, if it was ever started.

    Raises:
        RequestError: the tracking server does not answer.
    """
    try:
        run = _run_of(client, experiment, job_id)
    except MlflowException as error:
        raise RequestError(
            f"tracking server {client.tracking_uri!r} does not answer ({one_line(error)}); "
            "start it, or correct MLFLOW_TRACKING_URI"
        ) from error
    return None if run is None else str(run.info.run_id)


def open_run(
    client: Client, experiment: str, job_id: str, name: str, recipe: Mapping[str, Any]
) -> str:
    """Continue the job's run, or open it with the whole recipe as its parameters; its id."""
    run = _run_of(client, experiment, job_id)
    if run is not None:
        client.update_run(run.info.run_id, status="RUNNING")
    else:
        tags = {
            JOB_TAG: job_id,
            "heliograph.version": version("heliograph"),
            MLFLOW_USER: getpass.getuser(),
            MLFLOW_SOURCE_NAME: "heliograph train",
            MLFLOW_SOURCE_TYPE: "JOB",
            **_code_version(),
        }
        run = client.create_run(_experiment_id(client, experiment), run_name=name, tags=tags)
    if not run.data.params:  # new, or an attempt ended between these two calls
        parameters = [Param(key, str(value)) for key, value in _flatten(recipe)]
        client.log_batch(run.info.run_id, params=parameters)
    return str(run.info.run_id)


def run_started(client: Client, run_id: str) -> float:
    """When the job's run was first opened, in seconds since 1970."""
    return float(client.get_run(run_id).info.start_time) / 1000


def close_run(client: Client, run_id: str, succeeded: bool) -> None:
    status = RunStatus.FINISHED if succeeded else RunStatus.FAILED
    client.set_terminated(run_id, RunStatus.to_string(status))


def log_corpus(client: Client, run_id: str, corpus: Corpus, context: str) -> None:
    """Record which data it was: digest, counts, what was dropped and why.

    Args:
        context: what the corpus is for, "train" or "validation".
    """
    counts: dict[str, object] = {"seen": corpus.seen, "rows": corpus.rows}
    counts |= {f"dropped.{reason}": count for reason, count in corpus.dropped.items()}
    counts |= corpus.changed
    source = CodeDatasetSource({"identity": json.dumps(corpus.identity)}).to_dict()
    dataset = Dataset(
        name=str(corpus.identity.get("location", context))[:500],
        digest=corpus.digest[:36],
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


# Until worker.py gives them spools of its own, see metric_log and node_monitor.
def MetricLog(uri: str, run_id: str) -> metric_log.MetricLog:
    return metric_log.MetricLog(uri, run_id, tempfile.mkdtemp())


def monitor_node(uri: str, run_id: str) -> node_monitor.NodeMonitor:
    return node_monitor.monitor_node(uri, run_id, tempfile.mkdtemp(), 0.0)


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
    """A picture of every decoder layer for each sample: all heads, tokens on both axes."""
    for number, sample in enumerate(samples, start=1):
        source, target, weights = translator.attention(sample.source, sample.translation)
        for layer, heads in enumerate(weights, start=1):
            figure = draw_attention(source, target, heads)
            figure.suptitle(f"decoder layer {layer}: {sample.source}", fontsize=11, wrap=True)
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


def _run_of(client: Client, experiment: str, job_id: str) -> Run | None:
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return None
    query = f"tags.`{JOB_TAG}` = '{job_id}'"
    # The oldest: should two starts have raced, both go on in the same one.
    runs = client.search_runs(
        [found.experiment_id], query, max_results=1, order_by=["attributes.start_time ASC"]
    )
    return runs[0] if runs else None


def _experiment_id(client: Client, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    # Without a server, artifacts lie beside the database: MLflow's own default is a folder
    # `mlruns`, whose mere presence switches it to another kind of store.
    database = client.tracking_uri.removeprefix("sqlite:///")
    location = None
    if database != client.tracking_uri:
        location = (Path(database).resolve().parent / "mlartifacts" / name).as_uri()
    # Without this MLflow's pages show the experiment as one of prompts and agents.
    kind = {"mlflow.experimentKind": "custom_model_development"}
    return str(client.create_experiment(name, artifact_location=location, tags=kind))


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            pairs += _flatten(value, f"{prefix}{key}.")
        else:
            pairs.append((prefix + key, value))
    return pairs


def _code_version() -> dict[str, str]:
    """The commit of the code that runs, where it runs from a git checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True, stderr=-3).strip()
        dirty = subprocess.check_output([*git, "status", "--porcelain"], text=True, stderr=-3)
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {MLFLOW_GIT_COMMIT: commit, "heliograph.modified": str(bool(dirty)).lower()}
