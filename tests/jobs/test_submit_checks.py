"""What a job would not have, or would lose, is refused before anything is sent; secrets stay."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from heliograph.jobs.submit import check_request, submit
from heliograph.pipeline.cluster.job_server import JobServer
from tests.ray_jobs import job_server, put_stand_in, run, submit_from

NOBODY = "http://127.0.0.1:1"
"""Whoever connected there would say so, and not what is wrong."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")  # which `connect` changes
    (tmp_path / "here").mkdir()
    return submit_from(tmp_path / "here", monkeypatch)


@pytest.fixture(scope="module")
def server(ray_cluster: None) -> Iterator[JobServer]:
    with job_server() as server:
        yield server


VERBS = ["prepare", "train", "sync", "doctor"]


@pytest.mark.parametrize("verb", VERBS)
def test_a_recipe_elsewhere_is_refused(folder: Path, verb: str) -> None:
    elsewhere = folder.parent / "recipe.yaml"
    elsewhere.write_text((folder / "recipe.yaml").read_text())
    for path in (str(elsewhere), "../recipe.yaml"):
        done = run(submit, "--address", NOBODY, verb, path)
        assert done.exit_code == 2
        assert f"recipe '{path}' is not in '{folder}', which is what the job has" in done.stderr


@pytest.mark.parametrize("ignored_by", [".gitignore", ".rayignore", None])
@pytest.mark.parametrize("verb", VERBS)
def test_a_recipe_that_is_not_sent_is_refused(
    folder: Path, verb: str, ignored_by: str | None
) -> None:
    recipe = folder / ("mine" if ignored_by else "mlruns") / "recipe.yaml"
    recipe.parent.mkdir()
    recipe.write_text((folder / "recipe.yaml").read_text())
    if ignored_by:
        (folder / ignored_by).write_text("mine/\n")
    done = run(submit, "--address", NOBODY, verb, str(recipe))
    assert done.exit_code == 2
    assert f"recipe '{recipe.relative_to(folder)}' would not be there" in done.stderr


def test_a_recipe_s_path_is_that_of_the_job(folder: Path) -> None:
    link = folder.parent / "link"
    link.symlink_to(folder)
    (folder / "sub").mkdir()
    (folder / "sub/recipe.yaml").write_text((folder / "recipe.yaml").read_text())
    for path in (folder / "sub/recipe.yaml", link / "sub/recipe.yaml", "sub/../sub/recipe.yaml"):
        asked = check_request("train", [str(path), "train.steps=3", "--new"])
        assert asked.words == ["sub/recipe.yaml", "train.steps=3", "--new"]
        assert asked.recipe == "sub/recipe.yaml"
    asked = check_request("doctor", ["--storage", "/tmp"])
    assert (asked.stem, asked.words, asked.recipe) == ("doctor", ["--storage", "/tmp"], None)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("verb", "options", "said"),
    [
        ("translate", (), "standard input does not travel: give --input and --output"),
        ("translate", ("--input", "/a.txt", "--output", "out"), "--output 'out' is relative"),
        ("export", ("--format", "marian", "--output", "out"), "--output 'out' is relative"),
    ],
)
def test_what_nobody_would_get_is_refused(verb: str, options: tuple[str, ...], said: str) -> None:
    done = run(submit, "--address", NOBODY, verb, "models:/m@champion", *options)
    assert done.exit_code == 2
    assert said in done.stderr


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("output", ["/mnt/out", "s3://bucket/out"])
def test_a_translation_that_the_nodes_write_is_not(output: str) -> None:
    words = ["models:/m@champion", "--input", "a.txt", "--output", output]
    assert check_request("translate", words).words == words


def test_secrets_stay_here(server: JobServer, folder: Path) -> None:
    put_stand_in(folder)
    secrets = [".env", ".env.production", "tls/server.pem", ".ssh/id_ed25519", "a/b/id_rsa.old"]
    for name in [*secrets, "tls/readme", "ignored/.netrc"]:
        os.makedirs((folder / name).parent, exist_ok=True)
        (folder / name).write_text("for nobody")
    (folder / ".gitignore").write_text("ignored\n")
    done = run(submit, "--address", server.get_address(), "evaluate", "list")
    assert done.exit_code == 0, done.stderr
    listed = {line.split("/")[-1] for line in done.stderr.splitlines() if line.startswith("/")}
    assert {"recipe.yaml", "evaluate.py", "readme"} <= listed
    assert listed.isdisjoint({".ssh", ".netrc", *(Path(name).name for name in secrets)})
    assert (
        "not sent, for it looks like secrets: .env, .env.production, .ssh, a/b/id_rsa.old, "
        "tls/server.pem\n"
    ) in done.stderr
