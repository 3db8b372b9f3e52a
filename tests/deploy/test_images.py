"""The images, as far as they can be tried without a container engine: each step's ingredients."""

import fnmatch
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from dockerfile_parse import DockerfileParser
from packaging.requirements import Requirement

from tests.waiting import DEADLINE, LONG

ROOT = Path(__file__).parents[2]
DOCKERFILES = ["Dockerfile", "deploy/tracking/Dockerfile"]
PINNED = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
)


def steps(dockerfile: str, kind: str) -> list[str]:
    """What the instructions of a kind say, in order."""
    parser = DockerfileParser(str(ROOT / dockerfile), cache_content=True)
    return [each["value"] for each in parser.structure if each["instruction"] == kind]


def installs(dockerfile: str) -> list[list[str]]:
    """The words behind each `pip install`."""
    commands = re.split(r"&&|;|\|\|", " ; ".join(steps(dockerfile, "RUN")))
    words = [shlex.split(command) for command in commands if "pip install" in command]
    return [line[line.index("install") + 1 :] for line in words]


def copied(dockerfile: str) -> list[str]:
    """The sources of each COPY."""
    lines = [shlex.split(line) for line in steps(dockerfile, "COPY")]
    return [word for line in lines for word in line[:-1] if not word.startswith("--")]


def sent(path: str) -> bool:
    """Whether .dockerignore lets the builder have it; the last pattern that fits decides."""
    patterns = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    answer = True
    for pattern in patterns:
        if pattern and not pattern.startswith("#"):
            name = pattern.removeprefix("!")
            if fnmatch.fnmatch(path, name) or path.startswith(f"{name}/"):
                answer = pattern.startswith("!")
    return answer


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_what_is_copied_is_there_and_sent(dockerfile: str) -> None:
    assert copied(dockerfile)
    for source in copied(dockerfile):
        assert (ROOT / source).exists()
        assert sent(source)
    assert not sent(".git")
    assert not sent("deploy/kubernetes/raycluster.yaml")
    assert not sent("heliograph-storage")


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_it_does_not_run_as_root(dockerfile: str) -> None:
    assert steps(dockerfile, "USER")[-1] not in ("root", "0")
    assert steps(dockerfile, "USER")[-1] in ("ray", "mlflow")


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_the_versions_are_those_of_the_tests(dockerfile: str) -> None:
    """Every package by name is pinned by the constraints or, with them, in the step itself."""
    for words in installs(dockerfile):
        names = [word for word in words if not word.startswith("-") and not word.endswith(".txt")]
        for name in (each for each in names if not each.startswith(".")):
            requirement = Requirement(name)
            exact = {str(each).removeprefix("==").split("+")[0] for each in requirement.specifier}
            assert exact <= {PINNED[requirement.name.lower()]}
            assert exact or "--constraint" in words
        assert (
            "--constraint" in words or "--no-deps" in words or all("==" in each for each in names)
        )


def test_the_base_has_the_ray_of_the_constraints() -> None:
    """Nodes and drivers of different Ray, or Python, versions refuse each other."""
    for line in steps("Dockerfile", "FROM"):
        assert line == f"rayproject/ray:{PINNED['ray']}-py311-${{DEVICE}}"
    assert steps("Dockerfile", "ARG") == ["DEVICE=cpu", "DEVICE"]


def test_the_constraints_pin_what_is_installed_here() -> None:
    """For the packages that only the images need: the others are installed by `make`."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for line in (*extras["optional-dependencies"]["aws"], "mlflow", "psycopg", "flask-wtf"):
        name = Requirement(line).name
        pinned = {key.lower(): value for key, value in PINNED.items()}
        assert pinned[name] == version(name)


def test_what_is_copied_is_enough_to_install_and_run(tmp_path: Path) -> None:
    """The image's last steps, in a folder that has what COPY brings and nothing else."""
    folder = tmp_path / "heliograph"
    folder.mkdir()
    for source in copied("Dockerfile"):
        if (ROOT / source).is_dir():
            caches = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / source, folder / source, symlinks=True, ignore=caches)
        else:
            shutil.copy(ROOT / source, folder / source)
    words = ["--quiet", "--target", str(tmp_path / "site"), "--no-deps", "--no-build-isolation"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *words, str(folder)],
        check=True,
        timeout=LONG,
    )
    help_text = subprocess.run(
        [sys.executable, "-c", "from heliograph.jobs.cli import main; main()", "train", "--help"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        check=True,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    ).stdout
    assert "RECIPE" in help_text
    (found,) = (tmp_path / "site").glob("heliograph-*.dist-info")
    assert {path.name for path in (tmp_path / "site").iterdir()} == {
        "heliograph",
        found.name,
        "bin",
    }
    for file in ("jobs/train.py", "model/search.py", "recipes/base.yaml", "pipeline/serving/page"):
        assert (tmp_path / "site/heliograph" / file).exists()
    assert (tmp_path / "site/bin/heliograph").is_file()


def test_the_tracking_image_is_the_one_of_compose() -> None:
    folder = ROOT / "deploy/tracking"
    build = yaml.safe_load((folder / "compose.yaml").read_text())["services"]["mlflow"]["build"]
    context = (folder / build["context"]).resolve()
    assert context == ROOT
    assert (context / build["dockerfile"]).is_file()
    assert steps("deploy/tracking/Dockerfile", "CMD") == ['["serve"]']
    assert (folder / "serve").stat().st_mode & 0o111
