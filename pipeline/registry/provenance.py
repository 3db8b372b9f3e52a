"""Where a model comes from: what its run read, as a version keeps it in its own tags.

A run may be deleted, and its record with it; what the version says of itself stays.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT, MLFLOW_GIT_COMMIT

from heliograph.pipeline.checkpoints.model_folder import RECIPE, TOKENIZER
from heliograph.pipeline.runs.track import (
    DATASET_DIGEST_LENGTH,
    JOB_TAG,
    MODIFIED,
    RELEASE,
    code_version,
    job_before,
)
from heliograph.pipeline.tracking.server import Client

# Tags of a version, beside those of its run that say job and code; the first two also of the run.
TOKENIZER_DIGEST = "heliograph.tokenizer.digest"
BEGUN_ANEW_AFTER = "heliograph.begun_anew_after"
RECIPE_DIGEST = "heliograph.recipe.digest"
DATA = "heliograph.data"

LOCATION_LENGTH = 1000
"""Characters: a list of many files would not fit a tag."""

CODE_TAGS = (RELEASE, MLFLOW_GIT_COMMIT, MODIFIED)


@dataclass(frozen=True)
class DataSet:
    """A corpus that a run read.

    Attributes:
        context: what for: `train`, of a mixture `train.0`, `train.1`, …, `validation`, or `test`.
        digest: of the pairs that were used, in their order; `Corpus.digest`.
        location: as the recipe names it.
        revision: of a hub dataset, its commit.
        rows: pairs used.
        seen: rows read; those that were not used are in `dropped`, by reason.
    """

    context: str
    digest: str
    location: str
    split: str | None = None
    configuration: str | None = None
    revision: str | None = None
    rows: int = 0
    seen: int = 0
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def trains(self) -> bool:
        return self.context.partition(".")[0] == "train"

    @property
    def on_hub(self) -> bool:
        """Whether the location is a hub dataset's name: others have no revision."""
        return self.revision is not None


@dataclass(frozen=True)
class Provenance:
    """Where a model comes from; None and nothing: it was not recorded.

    Attributes:
        job: the job's name, which its folder on storage has too.
        tokenizer: SHA-256 of tokenizer.json.
        recipe: SHA-256 of recipe.yaml.
        begun_anew_after: the run that `train --new` left behind to begin this one.
        code: release, commit, and whether that was modified, as tags of a run say it.
    """

    run_id: str | None
    job: str | None = None
    data: tuple[DataSet, ...] = ()
    tokenizer: str | None = None
    recipe: str | None = None
    begun_anew_after: str | None = None
    code: dict[str, str] = field(default_factory=dict)

    def to_tags(self) -> dict[str, str]:
        tags = {
            JOB_TAG: self.job,
            TOKENIZER_DIGEST: self.tokenizer,
            RECIPE_DIGEST: self.recipe,
            BEGUN_ANEW_AFTER: self.begun_anew_after,
            DATA: json.dumps([asdict(each) for each in self.data]),
            **self.code,
        }
        return {key: value for key, value in tags.items() if value is not None}

    @classmethod
    def from_tags(cls, run_id: str | None, tags: Mapping[str, str]) -> "Provenance":
        return cls(
            run_id=run_id or None,
            job=tags.get(JOB_TAG),
            data=tuple(DataSet(**each) for each in json.loads(tags.get(DATA, "[]"))),
            tokenizer=tags.get(TOKENIZER_DIGEST),
            recipe=tags.get(RECIPE_DIGEST),
            begun_anew_after=tags.get(BEGUN_ANEW_AFTER),
            code=code_of(tags),
        )


def read_provenance(client: Client, run_id: str, folder: Path) -> Provenance:
    """Of the model in `folder`, which the run trained and this process is about to register."""
    run = client.get_run(run_id)
    job = run.data.tags.get(JOB_TAG)
    return Provenance(
        run_id=run_id,
        job=job,
        data=tuple(_datasets(run)),
        tokenizer=_sha256(folder / TOKENIZER),
        recipe=_sha256(folder / RECIPE),
        begun_anew_after=job and _run_of(client, run, job_before(job)),
        # The run says what it was begun with. A resumed one may end with other code: this.
        code=code_of(run.data.tags) | code_version(),
    )


def find_run(client: Client, run_id: str) -> Run | None:
    """The run, be it marked as deleted; None: nothing is left of it."""
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            raise
        return None


def code_of(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: tags[key] for key in CODE_TAGS if key in tags}


def describe_code(tags: Mapping[str, Any]) -> str:
    """Release and commit, as tags of a run name them."""
    release, commit = tags.get(RELEASE), tags.get(MLFLOW_GIT_COMMIT)
    changes = " and changes" if tags.get(MODIFIED) == "true" else ""
    parts = [
        f"heliograph {release}" if release else "",
        f"commit {commit}{changes}" if commit else "",
    ]
    return ", ".join(part for part in parts if part) or "not recorded"


def _datasets(run: Run) -> list[DataSet]:
    """What `track.log_corpus` wrote.

    The counts and the whole digest are parameters: MLflow's datasets keep 36 characters of it, and
    one entry for what a run reads twice.
    """
    params = run.data.params
    inputs: dict[str, list[tuple[str, Any]]] = {}
    for each in run.inputs.dataset_inputs:
        context = next((t.value for t in each.tags if t.key == MLFLOW_DATASET_CONTEXT), "")
        inputs.setdefault(each.dataset.digest, []).append((context, each.dataset))
    found = []
    for key, digest in params.items():
        prefix, _, last = key.rpartition(".")
        if last != "digest" or not prefix.startswith("corpus."):
            continue
        context = prefix.removeprefix("corpus.")
        candidates = inputs.get(digest[:DATASET_DIGEST_LENGTH], [])
        # Of equal pairs from two places, the one that was read for this.
        candidates.sort(key=lambda each: each[0] != context)
        identity = _identity(candidates[0][1]) if candidates else {}
        dropped = f"{prefix}.dropped."
        found.append(
            DataSet(
                context=context,
                digest=digest,
                location=_location(identity),
                **{part: identity.get(part) for part in ("split", "configuration", "revision")},
                rows=int(params.get(f"{prefix}.rows", 0)),
                seen=int(params.get(f"{prefix}.seen", 0)),
                dropped={
                    name.removeprefix(dropped): int(count)
                    for name, count in sorted(params.items())
                    if name.startswith(dropped)
                },
            )
        )
    return sorted(found, key=lambda each: (not each.trains, len(each.context), each.context))


def _identity(dataset: Any) -> dict[str, Any]:
    """`Corpus.identity`."""
    tags = json.loads(dataset.source or "{}").get("tags") or {}
    return dict(json.loads(tags.get("identity", "{}")))


def _location(identity: Mapping[str, Any]) -> str:
    location = identity.get("location", identity.get("stream", "not recorded"))
    if isinstance(location, list) and len(location) == 1:
        [location] = location
    text = location if isinstance(location, str) else json.dumps(location, ensure_ascii=False)
    return text if len(text) <= LOCATION_LENGTH else f"{text[:LOCATION_LENGTH]} …"


def _run_of(client: Client, run: Run, job: str | None) -> str | None:
    if job is None:
        return None
    query = f"tags.`{JOB_TAG}` = '{job}'"
    runs = client.search_runs(
        [run.info.experiment_id], query, ViewType.ALL, 1, ["attributes.start_time ASC"]
    )
    return str(runs[0].info.run_id) if runs else None


def _sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
