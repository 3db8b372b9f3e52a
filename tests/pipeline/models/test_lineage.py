"""From a version to its data, and back: on real stores, with runs as training jobs write them."""

import dataclasses
import json
import re
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient
from typer.testing import CliRunner

from heliograph.jobs.command import application
from heliograph.jobs.lineage import lineage
from heliograph.pipeline.corpus.corpus import Corpus
from heliograph.pipeline.models.lineage import descend, trace
from heliograph.pipeline.promotion.ledger import find_ledger, open_ledger
from heliograph.pipeline.promotion.promote import promote
from heliograph.pipeline.registry import versions
from heliograph.pipeline.registry.provenance import find_run, read_provenance
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.runs import track
from tests.pipeline.conftest import MakeModel
from tests.pipeline.model_store import Store
from tests.pipeline.small_corpus import unread_corpus
from tests.tracking_server import MlflowServer

EN_DE, EN_DE_MORE, HELD_OUT = "ab12" * 16, "ab12" * 15 + "ff00", "cd34" * 16

TRAIN = unread_corpus(EN_DE, "owner/pairs", split="train", revision="c0ffee")
VALIDATION = unread_corpus(HELD_OUT, ["held-out.parquet"])

Begin = Callable[..., str]
Add = Callable[..., None]


@pytest.fixture
def begin(store: Store) -> Begin:
    """A job's run, as `run_training_job` opens it; the store registers from it."""

    def begin(job: str, *corpora: Corpus) -> str:
        store.run_id = track.open_run(store.client, "tiny", job, "tiny", {"seed": 1})
        for number, each in enumerate(corpora):
            context = "train" if len(corpora) == 1 else f"train.{number}"
            track.log_corpus(store.client, store.run_id, each, context)
        track.log_corpus(store.client, store.run_id, VALIDATION, "validation")
        return store.run_id

    return begin


@pytest.fixture
def add(store: Store, make_model: MakeModel) -> Add:
    """Versions with the tags that `register` gives them, and without files, which take seconds."""

    def add(count: int = 1) -> None:
        if not versions.model_exists(store.client, store.name):
            store.client.create_registered_model(store.name)
        origin = read_provenance(store.client, store.run_id, make_model(1))
        for _ in range(count):
            version = store.client.create_model_version(
                store.name, "file:///nowhere", store.run_id, tags=origin.to_tags()
            )
            store.client.set_registered_model_alias(store.name, "challenger", version.version)

    return add


def test_a_version_leads_to_all_it_was_made_from(
    store: Store, make_model: MakeModel, begin: Begin
) -> None:
    run_id = begin("tiny-0123456789", TRAIN)
    points = [Metric("events/restart", n, 1000 * n, 40 * n) for n in (1, 2)]
    store.client.log_batch(run_id, metrics=points)
    store.register(make_model(3, known=4))
    store.client.set_terminated(run_id, "FINISHED")
    promote("tiny")

    found = trace("models:/tiny@champion")
    assert (found.name, found.version) == ("tiny", 1)
    assert found.aliases == ["challenger", "champion"]
    assert found.registered == pytest.approx(time.time(), abs=60)
    origin = found.provenance
    assert (origin.run_id, origin.job) == (run_id, "tiny-0123456789")
    checksums = json.loads(store.tags(1)["heliograph.checksums"])
    assert origin.tokenizer == checksums["tokenizer.json"]
    assert origin.recipe == checksums["recipe.yaml"]
    train, validation = origin.data
    assert (train.context, train.digest, train.location) == ("train", EN_DE, "owner/pairs")
    assert (train.split, train.revision) == ("train", "c0ffee")
    assert (train.rows, train.seen, train.dropped) == (90, 100, {"empty": 10})
    assert (validation.context, validation.digest) == ("validation", HELD_OUT)
    assert validation.location == "held-out.parquet"
    assert found.run is not None
    assert (found.run.state, found.run.name, found.run.status) == ("there", "tiny", "FINISHED")
    assert [(incident.kind, incident.step) for incident in found.run.incidents] == [
        ("restart", 40),
        ("restart", 80),
    ]
    assert found.run.code == origin.code == {**found.run.code, "heliograph.version": "0.1.0"}
    assert found.promotion is not None
    assert (found.promotion.number, found.promotion.kind) == (1, "gate")
    assert found.relatives == []
    assert store.client.get_run(run_id).data.tags["heliograph.tokenizer.digest"] == origin.tokenizer

    assert trace("models:/tiny/1") == trace(f"runs:/{run_id}/tiny") == found


def test_data_lead_to_all_versions_of_all_models(
    store: Store, add: Add, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "PAGE_SIZE", 2)  # so that there are several pages
    begin("tiny-0123456789", TRAIN)
    add(3)
    store.name = "other"
    begin(
        "other-0123456789",
        unread_corpus(HELD_OUT, "held-out.parquet"),
        unread_corpus(EN_DE, "a copy.jsonl"),
    )
    add(2)
    begin("else-0123456789", unread_corpus(EN_DE_MORE, "owner/pairs"))
    add()

    descent = descend(EN_DE[:8] + EN_DE[8:].upper())
    assert descent.digest == EN_DE
    assert [
        (use.name, use.version, use.data.context, use.data.location) for use in descent.uses
    ] == [
        ("other", 1, "train.1", "a copy.jsonl"),
        ("other", 2, "train.1", "a copy.jsonl"),
        ("tiny", 1, "train", "owner/pairs"),
        ("tiny", 2, "train", "owner/pairs"),
        ("tiny", 3, "train", "owner/pairs"),
    ]
    assert [use.aliases for use in descent.uses] == [[], [], [], [], ["challenger"]]
    # What it is validated on is said as such, and is no reason to be kin.
    contexts = [(use.name, use.version, use.data.context) for use in descend("cd34cd34").uses]
    assert ("other", 1, "train.0") in contexts
    assert ("other", 1, "validation") in contexts
    assert ("other", 3, "validation") in contexts
    relatives = [(use.name, use.version) for use in trace("models:/tiny/2").relatives]
    assert relatives == [("other", 1), ("other", 2), ("tiny", 1), ("tiny", 3)]
    assert trace("models:/other/3").relatives == []


def test_data_of_many_files(store: Store, begin: Begin, add: Add) -> None:
    """MLflow refuses a dataset whose source is longer than 65,535 characters."""
    paths = [f'/data/shards/"part"-{number:05d}-of-10000.parquet' for number in range(10_000)]
    files = [{"path": path, "size": 1, "modified": 2} for path in paths]
    globbed = unread_corpus(EN_DE, "/data/shards/*.parquet", files=files)
    listed = dataclasses.replace(globbed, digest=HELD_OUT[::-1], identity={"location": paths})
    begin("tiny-0123456789", globbed, listed)
    add()
    first, second, _ = trace("models:/tiny/1").provenance.data
    assert first.location == "/data/shards/*.parquet"
    assert re.match("10000 files with sha256 [0-9a-f]{64}, the first of them", second.location)


def test_a_server_s_pages_are_all_turned(
    server: MlflowServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    monkeypatch.setattr(versions, "PAGE_SIZE", 2)
    client, digest = MlflowClient(server.url), "5e7e" * 16
    run_id = client.create_run("0").info.run_id
    track.log_corpus(client, run_id, unread_corpus(digest, "owner/pairs"), "train")
    tags = read_provenance(client, run_id, tmp_path).to_tags()
    for name in ("far-a", "far-b"):
        client.create_registered_model(name)
        for _ in range(3):
            client.create_model_version(name, "s3://bucket/nowhere", run_id, tags=tags)
    expected = [(name, number) for name in ("far-a", "far-b") for number in (1, 2, 3)]
    assert [(use.name, use.version) for use in descend(digest[:8]).uses] == expected
    client.delete_run(run_id)
    found = trace("models:/far-a/2")
    assert [(use.name, use.version) for use in found.relatives] == [
        each for each in expected if each != ("far-a", 2)
    ]
    assert found.run is not None
    assert found.run.state == "deleted"
    assert find_run(client, "0" * 32) is None


def test_a_digest_that_says_too_little_is_refused(store: Store, add: Add, begin: Begin) -> None:
    with pytest.raises(RequestError, match="no version in this registry says what it was made"):
        descend(EN_DE)
    begin("tiny-0123456789", TRAIN)
    add()
    begin("tiny-9876543210", unread_corpus(EN_DE_MORE, "owner/more"))
    add()
    with pytest.raises(RequestError, match=rf"several: {EN_DE} \(owner/pairs\), {EN_DE_MORE} \("):
        descend(EN_DE[:12])
    assert descend(EN_DE_MORE).uses[0].version == 2
    with pytest.raises(RequestError, match="did you mean 'ab12ab12ab12'"):
        descend("ab12ab12ab13")
    with pytest.raises(RequestError, match="`heliograph lineage MODEL` shows those of a version"):
        descend("fedcfedc")
    with pytest.raises(RequestError, match="no version was made from a data set"):
        descend("b12ab12ab12a")  # inside a digest, but not its beginning
    for digest in ("ab12ab1", "%%%%%%%%", "ab12ab12' OR '1", ""):
        with pytest.raises(RequestError, match="it must be 8 to 64 of the characters"):
            descend(digest)


def test_a_version_outlives_its_run(store: Store, add: Add, begin: Begin, tmp_path: Path) -> None:
    run_id = begin("tiny-0123456789", TRAIN)
    add()
    before = trace("models:/tiny/1")

    store.client.delete_run(run_id)
    marked = trace("models:/tiny/1")
    assert marked.run is not None
    assert (marked.run.state, marked.run.name) == ("deleted", "tiny")
    assert marked.provenance == before.provenance
    assert [use.version for use in descend(EN_DE).uses] == [1]

    with sqlite3.connect(tmp_path / "mlflow.db") as database:  # as `mlflow gc` leaves it
        database.execute("PRAGMA foreign_keys = OFF")
        database.execute("DELETE FROM runs WHERE run_uuid = ?", [run_id])
    gone = trace("models:/tiny/1")
    assert gone.run is not None
    assert (gone.run.id, gone.run.state) == (run_id, "gone")
    assert gone.provenance == before.provenance


def test_a_job_begun_anew_names_the_one_before(store: Store, add: Add, begin: Begin) -> None:
    first = begin("tiny-0123456789", TRAIN)
    add()
    store.client.delete_run(first)
    second = begin("tiny-0123456789.2", TRAIN)
    add()
    begin("tiny-0123456789.3", TRAIN)
    add()
    before = [trace(f"models:/tiny/{n}").provenance.begun_anew_after for n in (1, 2, 3)]
    assert before == [None, first, second]


def test_the_same_pairs_for_training_and_validation_are_both_there(
    store: Store, add: Add, begin: Begin
) -> None:
    """MLflow keeps one entry of a data set that a run reads twice."""
    begin("tiny-0123456789", VALIDATION)
    add()
    data = trace("models:/tiny/1").provenance.data
    assert [(each.context, each.digest, each.location) for each in data] == [
        ("train", HELD_OUT, "held-out.parquet"),
        ("validation", HELD_OUT, "held-out.parquet"),
    ]


def test_a_version_from_elsewhere_and_a_deleted_ledger(
    store: Store, add: Add, begin: Begin
) -> None:
    store.client.create_registered_model("foreign")
    store.client.create_model_version("foreign", "file:///nowhere")
    found = trace("models:/foreign/1")
    assert (found.run, found.promotion, found.provenance.data) == (None, None, ())

    begin("tiny-0123456789", TRAIN)
    add()
    assert find_ledger(store.client, "tiny") is None
    open_ledger(store.client, "tiny")
    experiment = store.client.get_experiment_by_name("tiny: champions")
    assert experiment is not None
    store.client.delete_experiment(experiment.experiment_id)
    found = trace("models:/tiny/1")
    assert found.promotion is None
    assert "was deleted; `mlflow experiments restore" in (found.remark or "")


def test_what_cannot_be_traced_is_said(make_model: MakeModel, add: Add, begin: Begin) -> None:
    run_id = begin("tiny-0123456789", TRAIN)
    folder = make_model(1)
    add(2)
    for model, message in {
        "models:/tini/1": "did you mean 'tiny'",
        "models:/tiny/7": "no version '7'; valid: ",
        "models:/tiny@champion": "no alias 'champion'; valid: challenger",
        f"runs:/{'0' * 32}/tiny": "no version of a registered model is of run",
        f"runs:/{run_id}/tiny": "name one of models:/tiny/1, models:/tiny/2",
        str(folder): "is a folder, which no registry knows",
    }.items():
        with pytest.raises(RequestError, match=re.escape(message)):
            trace(model)


def test_people_see_a_tree_and_scripts_the_facts(
    store: Store, make_model: MakeModel, begin: Begin, add: Add
) -> None:
    run_id = begin("tiny-0123456789", TRAIN)
    store.client.log_batch(run_id, metrics=[Metric("events/failure", 1, 1000, 40)])
    store.register(make_model(3, known=4))
    add()
    promote("tiny", 1)

    shown = application(lineage)
    done = CliRunner().invoke(shown, ["models:/tiny@champion", "--json"])
    assert done.exit_code == 0, done.stderr
    *lines, result = done.stdout.splitlines()
    text = "\n".join(lines)
    for said in (
        r"^models:/tiny/1 \(champion\), registered 20",
        r"^├─ champion by decision 1 \(gate\), .*: version 1 becomes the first champion",
        rf"^├─ run {run_id}, tiny, job tiny-0123456789, RUNNING$",
        r"^│  ├─ failure at step 40, 1970",
        r"^├─ tokenizer [0-9a-f]{64}$",
        rf"^├─ train: owner/pairs train revision c0ffee, 90 pairs of 100, {EN_DE}$",
        r"^└─ others trained on the same data$",
        r"^   └─ models:/tiny/2 \(challenger\), train",
    ):
        assert re.search(said, text, flags=re.MULTILINE), (said, text)
    found = json.loads(result)
    assert found["provenance"]["data"][0]["digest"] == EN_DE
    assert found["run"]["incidents"] == [{"kind": "failure", "step": 40, "time": 1.0}]
    assert found["promotion"]["number"] == 1

    done = CliRunner().invoke(shown, ["--data", EN_DE[:8], "--json"])
    assert done.exit_code == 0, done.stderr
    head, first, second, result = done.stdout.splitlines()
    assert head == f"data {EN_DE}"
    assert first.startswith("├─ models:/tiny/1 (champion), train (90 pairs), run ")
    assert second.startswith("└─ models:/tiny/2 (challenger), train (90 pairs), run ")
    assert [use["version"] for use in json.loads(result)["uses"]] == [1, 2]
