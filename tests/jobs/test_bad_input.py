"""Every mistake: exit code 2, one clear message, soon, no traceback, and nothing written."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.jobs.conftest import Finished

Command = Callable[..., Finished]

# The promise is two seconds; twice that is for machines that run other things besides.
SOON = 4.0
# The number of workers is judged by the machine's resources, which torch and Ray know.
WITH_LIBRARIES = 12.0

TRAIN = ("train", "recipe.yaml")

MISTAKES = {
    "no recipe": (("train", "recpie.yaml"), "recipe 'recpie.yaml' does not exist", SOON),
    "mistyped key": ((*TRAIN, "model.widht=4"), "unknown key; did you mean 'width'?", SOON),
    "mistyped section": ((*TRAIN, "modle.width=4"), "unknown key; did you mean 'model'?", SOON),
    "wrong type": ((*TRAIN, "train.steps=many"), "train.steps: 'many'", SOON),
    "out of range": ((*TRAIN, "model.dropout=1.5"), "model.dropout: 1.5", SOON),
    "no override": ((*TRAIN, "train.steps"), "'train.steps' must read", SOON),
    "missing file": ((*TRAIN, "data.train=missing.parquet"), "missing.parquet", SOON),
    "unknown suffix": ((*TRAIN, "data.train=pairs.docx"), "pairs.docx", SOON),
    "missing column": ((*TRAIN, "data.train=pairs.parquet", "data.source=fr"), "'fr'", SOON),
    "empty corpus": ((*TRAIN, "data.validation=empty.parquet"), "empty.parquet", SOON),
    "no such split": ((*TRAIN, "data.train=embedded:trian"), "trian", SOON),
    "too many workers": ((*TRAIN, "cluster.workers=5000"), "cluster.workers", WITH_LIBRARIES),
    "two runs": ((*TRAIN, "--new", "--run-id", "1"), "--new and --run-id '1' exclude", SOON),
    "mixture": ((*TRAIN, "data.train=[{locaton: a}]"), "did you mean 'location'?", SOON),
    "augment": ((*TRAIN, "augment.unigram_alpha=1"), "is for tokenizer.kind unigram", SOON),
    "demo": (("demo", "train.stesp=3"), "train.stesp: unknown key; did you mean 'steps'?", SOON),
    "no such folder": (("translate", "checkpoints/none"), "'checkpoints/none' is not there", SOON),
    "no such model": (("translate", "models:/nobody@champion"), "'nobody' does not exist", SOON),
    "no model URI": (("evaluate", "model:/nobody"), "models:/NAME@ALIAS", SOON),
    "no such version": (("evaluate", "models:/nobody/3"), "'nobody' does not exist", SOON),
    "promote nothing": (("promote", "nobody", "--version", "3"), "'nobody' does not exist", SOON),
    "roll back nothing": (("rollback", "nobody"), "'nobody' does not exist", SOON),
    "lineage of nothing": (("lineage", "models:/nobody/3"), "'nobody' does not exist", SOON),
    "lineage of what": (("lineage",), "give MODEL, or --data DIGEST", SOON),
    "no place": (("pin", "a", "b", "--data", "{a"), "--data '{a': must be a name", SOON),
    "no rule": (("promote", "a", "--rule", "size"), "'size' is no rule: it must read", SOON),
    "two lineages": (("lineage", "models:/a/1", "--data", "ab"), "exclude each other", SOON),
    "no digest": (("lineage", "--data", "ab%"), "8 to 64 of the characters 0-9a-f", SOON),
    "mistyped statement": ((*TRAIN, "card.licence=MIT"), "did you mean 'license'?", SOON),
    "no receiver": (("notify", "a.example"), "'a.example' must read https://HOST/PATH", SOON),
    "notice from a file": (("notify", "https://a.example"), "is no server, and only a", SOON),
    "remove whom": (("notify", "--remove"), "--remove needs the URL", SOON),
    "half a request": (("translate", "models:/a@b", "--input", "x.parquet"), "--output", SOON),
    "mistyped setting": (("translate", "models:/a@b", "baem=1"), "did you mean 'beam'?", SOON),
    "of a data set": (("translate", "models:/a@b", "--scores"), "are about a data set", SOON),
    "unknown verb sent": (("submit", "trian", "recipe.yaml"), "did you mean 'train'?", SOON),
    "bad recipe sent": (("submit", *TRAIN, "seeed=1"), "did you mean 'seed'?", SOON),
}  # fmt: skip


@pytest.fixture(autouse=True)
def data_files(folder: Path) -> None:
    pairs = pa.table({"source": ["a b", "c d"], "target": ["e f", "g h"]})
    pq.write_table(pairs, folder / "pairs.parquet")
    pq.write_table(pairs.slice(0, 0), folder / "empty.parquet")
    (folder / "pairs.docx").write_text("a b")


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered_at_once(mistake: str, heliograph: Command, folder: Path) -> None:
    words, message, seconds = MISTAKES[mistake]
    before = sorted(path.name for path in folder.rglob("*"))
    done = heliograph(*words)
    assert done.exit_code == 2, done.stderr
    assert done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if not line.startswith("heliograph: note:")]
    assert len(errors) == 1, done.stderr
    assert errors[0].startswith("heliograph: error: ")
    assert message in errors[0]
    assert sorted(path.name for path in folder.rglob("*")) == before
    assert done.seconds < seconds


def test_promoting_nothing_writes_nothing(heliograph: Command, folder: Path) -> None:
    done = heliograph("promote", "nobody")
    assert done.exit_code == 2, done.stderr
    assert done.stderr.startswith("heliograph: error: registered model 'nobody' does not exist")
    assert len(done.stderr.splitlines()) == 1
    assert [path.name for path in folder.rglob("*.db*")] == []
    assert done.seconds < WITH_LIBRARIES


def test_debug_shows_the_traceback(heliograph: Command) -> None:
    done = heliograph(*TRAIN, "model.widht=4", "--debug")
    assert done.exit_code == 2
    assert "Traceback (most recent call last):" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("heliograph: error: model.widht: unknown key")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("trian", "recipe.yaml"), "No such command 'trian'. Did you mean 'train'"),
        (("train",), "Missing argument 'RECIPE'"),
        (("train", "recipe.yaml", "--jsn"), "No such option: --jsn"),
        (("promote", "name", "--version", "latest"), "Invalid value for '--version'"),
        (("submit", "promote"), "Missing argument 'NAME'"),
        (("submit", "promote", "name", "--margni", "1"), "No such option: --margni"),
    ],
)
def test_wrong_usage(words: tuple[str, ...], message: str, heliograph: Command) -> None:
    done = heliograph(*words)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert done.seconds < SOON
