"""Every mistake: exit code 2, one clear message, before what takes long is loaded, no traceback,
and nothing written."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.jobs.conftest import Forked, run_command

Command = Callable[..., Forked]

TRAIN = ("train", "recipe.yaml")

MISTAKES = {
    "no recipe": (("train", "recpie.yaml"), "recipe 'recpie.yaml' does not exist"),
    "mistyped key": ((*TRAIN, "model.widht=4"), "unknown key; did you mean 'width'?"),
    "mistyped section": ((*TRAIN, "modle.width=4"), "unknown key; did you mean 'model'?"),
    "wrong type": ((*TRAIN, "train.steps=many"), "train.steps: 'many'"),
    "out of range": ((*TRAIN, "model.dropout=1.5"), "model.dropout: 1.5"),
    "no override": ((*TRAIN, "train.steps"), "'train.steps' must read"),
    "missing file": ((*TRAIN, "data.train=missing.parquet"), "missing.parquet"),
    "unknown suffix": ((*TRAIN, "data.train=pairs.docx"), "pairs.docx"),
    "missing column": ((*TRAIN, "data.train=pairs.parquet", "data.source=fr"), "'fr'"),
    "empty corpus": ((*TRAIN, "data.validation=empty.parquet"), "empty.parquet"),
    "no such split": ((*TRAIN, "data.train=embedded:trian"), "trian"),
    "too many workers": ((*TRAIN, "cluster.workers=5000"), "cluster.workers"),
    "two runs": ((*TRAIN, "--new", "--run-id", "1"), "--new and --run-id '1' exclude"),
    "mixture": ((*TRAIN, "data.train=[{locaton: a}]"), "did you mean 'location'?"),
    "augment": ((*TRAIN, "augment.unigram_alpha=1"), "is for tokenizer.kind unigram"),
    "demo": (("demo", "train.stesp=3"), "train.stesp: unknown key; did you mean 'steps'?"),
    "no such folder": (("translate", "checkpoints/none"), "'checkpoints/none' is not there"),
    "no such model": (("translate", "models:/nobody@champion"), "'nobody' does not exist"),
    "no model URI": (("evaluate", "model:/nobody"), "models:/NAME@ALIAS"),
    "no such version": (("evaluate", "models:/nobody/3"), "'nobody' does not exist"),
    "promote nothing": (("promote", "nobody", "--version", "3"), "'nobody' does not exist"),
    "roll back nothing": (("rollback", "nobody"), "'nobody' does not exist"),
    "lineage of nothing": (("lineage", "models:/nobody/3"), "'nobody' does not exist"),
    "lineage of what": (("lineage",), "give MODEL, or --data DIGEST"),
    "no place": (("pin", "a", "b", "--data", "{a"), "--data '{a': must be a name"),
    "no rule": (("promote", "a", "--rule", "size"), "'size' is no rule: it must read"),
    "two lineages": (("lineage", "models:/a/1", "--data", "ab"), "exclude each other"),
    "no digest": (("lineage", "--data", "ab%"), "8 to 64 of the characters 0-9a-f"),
    "mistyped statement": ((*TRAIN, "card.licence=MIT"), "did you mean 'license'?"),
    "no receiver": (("notify", "a.example"), "'a.example' must read https://HOST/PATH"),
    "notice from a file": (("notify", "https://a.example"), "is no server, and only a"),
    "remove whom": (("notify", "--remove"), "--remove needs the URL"),
    "half a request": (("translate", "models:/a@b", "--input", "x.parquet"), "--output"),
    "mistyped setting": (("translate", "models:/a@b", "baem=1"), "did you mean 'beam'?"),
    "of a data set": (("translate", "models:/a@b", "--scores"), "are about a data set"),
    "unknown verb sent": (("submit", "trian", "recipe.yaml"), "did you mean 'train'?"),
    "bad recipe sent": (("submit", *TRAIN, "seeed=1"), "did you mean 'seed'?"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def data_files(folder: Path) -> None:
    pairs = pa.table({"source": ["a b", "c d"], "target": ["e f", "g h"]})
    pq.write_table(pairs, folder / "pairs.parquet")
    pq.write_table(pairs.slice(0, 0), folder / "empty.parquet")
    (folder / "pairs.docx").write_text("a b")


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered_at_once(mistake: str, heliograph: Command, folder: Path) -> None:
    words, message = MISTAKES[mistake]
    before = sorted(path.name for path in folder.rglob("*"))
    done = heliograph(*words)
    assert done.exit_code == 2, done.stderr
    assert done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if not line.startswith("heliograph: note:")]
    assert len(errors) == 1, done.stderr
    assert errors[0].startswith("heliograph: error: ")
    assert message in errors[0]
    assert sorted(path.name for path in folder.rglob("*")) == before
    assert done.loaded == set()


def test_what_is_loaded_is_seen(heliograph: Command) -> None:
    """Else the tests above could not fail."""
    assert heliograph(module="ray").loaded == {"ray"}


def test_a_new_interpreter_says_the_same(heliograph: Command, folder: Path) -> None:
    """The tests above are of forks."""
    words = (*TRAIN, "model.widht=4")
    fork, new = heliograph(*words), run_command(["-m", "heliograph.jobs.cli", *words], folder)
    assert (new.exit_code, new.stdout, new.stderr) == (fork.exit_code, fork.stdout, fork.stderr)


def test_promoting_nothing_writes_nothing(heliograph: Command, folder: Path) -> None:
    done = heliograph("promote", "nobody")
    assert done.exit_code == 2, done.stderr
    assert done.stderr.startswith("heliograph: error: registered model 'nobody' does not exist")
    assert len(done.stderr.splitlines()) == 1
    assert [path.name for path in folder.rglob("*.db*")] == []


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
    assert done.loaded == set()
