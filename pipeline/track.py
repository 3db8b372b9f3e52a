"""Tracking: one logical job is one MLflow run, however often it is started.

The driver opens the run and hands its id to the workers; rank 0 writes metrics through a
`MetricLog`, which never makes training wait and never logs a step twice.
"""

import getpass
import json
import logging
import os
import queue
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import mlflow
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunStatus
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import (
    MLFLOW_DATASET_CONTEXT,
    MLFLOW_GIT_COMMIT,
    MLFLOW_RUN_NOTE,
    MLFLOW_SOURCE_NAME,
    MLFLOW_SOURCE_TYPE,
    MLFLOW_USER,
)

from pipeline.corpus import Corpus
from pipeline.errors import RequestError
from pipeline.pictures import draw_attention, draw_curves
from pipeline.translate import Translator

logger = logging.getLogger(__name__)

Client: TypeAlias = MlflowClient

JOB_TAG = "heliograph.job"


def connect(uri: str) -> Client:
    """A client of the tracking server at `uri`, which the rest of this process uses too.

    MLflow's own retries keep a caller waiting for four minutes when a server is down; a variable
    that the user set wins over these.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    mlflow.set_tracking_uri(uri)
    return Client(uri)


def find_run(client: Client, experiment: str, job_id: str) -> str | None:
    """The id of the job's run, if it was ever started.

    Raises:
        RequestError: the tracking server does not answer.
    """
    try:
        found = client.get_experiment_by_name(experiment)
        if found is None:
            return None
        runs = client.search_runs(
            [found.experiment_id], f"tags.`{JOB_TAG}` = '{job_id}'", max_results=1
        )
    except MlflowException as error:
        raise RequestError(
            f"tracking server {client.tracking_uri!r} does not answer ({error}); "
            "start it, or correct MLFLOW_TRACKING_URI"
        ) from error
    return runs[0].info.run_id if runs else None


def open_run(
    client: Client, experiment: str, job_id: str, name: str, recipe: Mapping[str, Any]
) -> str:
    """Continue the job's run, or open it with the whole recipe as its parameters; its id."""
    run_id: str | None = find_run(client, experiment, job_id)
    if run_id is not None:
        client.update_run(run_id, status="RUNNING")
        return run_id
    run = client.create_run(
        _experiment_id(client, experiment),
        run_name=name,
        tags={
            JOB_TAG: job_id,
            "heliograph.version": version("heliograph"),
            MLFLOW_USER: getpass.getuser(),
            MLFLOW_SOURCE_NAME: "heliograph train",
            MLFLOW_SOURCE_TYPE: "JOB",
            **_code_version(),
        },
    )
    run_id = run.info.run_id
    parameters = [Param(key, str(value)) for key, value in _flatten(recipe)]
    client.log_batch(run_id, params=parameters)
    return run_id


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


class MetricLog:
    """Metrics by step, written in the background and in order.

    What a run already holds is not written again: after a resume the steps since the checkpoint are
    computed a second time, and here they are passed over. A server that is away for a while delays
    the metrics, not the training.
    """

    def __init__(self, uri: str, run_id: str) -> None:
        self._client = Client(uri)
        self._run_id = run_id
        run = self._client.get_run(run_id)
        # The public mapping holds values without their steps; MLflow's own monitor reads this too.
        self._logged: dict[str, int] = {m.key: m.step for m in run.data._metric_objs}
        self._waiting: queue.SimpleQueue[list[Metric] | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="metric-log", daemon=True)
        self._writer.start()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take the values of one step; returns at once."""
        now = int(time.time() * 1000)
        fresh = [
            Metric(key, float(value), now, step)
            for key, value in values.items()
            if step > self._logged.get(key, -1)
        ]
        self._logged.update({metric.key: step for metric in fresh})
        if fresh:
            self._waiting.put(fresh)

    def close(self, timeout: float = 600.0) -> None:
        """Wait until everything has arrived.

        Raises:
            TimeoutError: the server was still away after `timeout` seconds.
        """
        self._waiting.put(None)
        self._writer.join(timeout)
        if self._writer.is_alive():
            raise TimeoutError(
                f"the tracking server did not take the last metrics within {timeout:.0f} s"
            )

    def _write(self) -> None:
        open_ended = True
        while open_ended:
            batch = self._waiting.get()
            metrics: list[Metric] = []
            while batch is not None:
                metrics += batch
                # MLflow takes 1000 metrics at once; more steps are joined while they are there.
                if len(metrics) > 900 or self._waiting.empty():
                    break
                batch = self._waiting.get()
            open_ended = batch is not None
            self._deliver(metrics)

    def _deliver(self, metrics: list[Metric]) -> None:
        pause = 1.0
        while metrics:
            try:
                self._client.log_batch(self._run_id, metrics=metrics[:1000])
                metrics = metrics[1000:]
            except Exception as error:  # whatever the transport raises, the metrics must arrive
                logger.warning("metrics wait for the tracking server: %s", error)
                time.sleep(pause)
                pause = min(2 * pause, 15.0)


def monitor_node(uri: str, run_id: str) -> SystemMetricsMonitor:
    """Log this node's CPU, memory, disk, network and GPU use under its name until `.finish()`."""
    monitor = SystemMetricsMonitor(
        run_id, node_id=socket.gethostname(), tracking_uri=uri, resume_logging=True
    )
    monitor.start()
    return monitor


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
        client.log_table(run_id, columns, "samples.json")


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
