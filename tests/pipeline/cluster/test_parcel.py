"""What is sent with a job, and what is not."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from heliograph.pipeline.cluster.parcel import (
    SECONDS_TO_STOP,
    describe_left_out,
    installed_by,
    look_through,
    pack,
)
from heliograph.pipeline.cluster.sealed import SEALED, unseal
from heliograph.pipeline.request.errors import RequestError

ROOT = Path(__file__).parents[3]
SECRET = "hunter2"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text("name: tiny\n")
    return tmp_path


def variables(folder: Path, verb: str = "train", **environment: str) -> dict[str, str]:
    sent: dict[str, Any] = pack(folder, verb, "image", environment, "token").runtime_env
    names: dict[str, str] = sent["env_vars"]
    del names["RAY_JOB_STOP_WAIT_TIME_S"]
    return names


def test_settings_travel_as_they_are_and_secrets_sealed(folder: Path) -> None:
    address = "https://tracking.example"
    sent = variables(
        folder,
        MLFLOW_TRACKING_URI=address,
        MLFLOW_TRACKING_PASSWORD=SECRET,
        HOME="/root",
        RAY_AUTH_MODE="token",
        HELIOGRAPH_WEBHOOK_SECRET=SECRET,
    )
    assert set(sent) == {"MLFLOW_TRACKING_URI", SEALED}
    assert sent["MLFLOW_TRACKING_URI"] == address
    assert unseal(sent[SEALED], "token") == {"MLFLOW_TRACKING_PASSWORD": SECRET}


def test_an_address_with_a_password_is_a_secret(folder: Path) -> None:
    address = f"https://user:{SECRET}@tracking.example"
    sent = variables(folder, MLFLOW_TRACKING_URI=address)
    assert SECRET not in str(sent)
    assert unseal(sent[SEALED], "token") == {"MLFLOW_TRACKING_URI": address}


def test_the_secret_of_notices_goes_with_notify_alone(folder: Path) -> None:
    sent = variables(folder, "notify", HELIOGRAPH_WEBHOOK_SECRET=SECRET)
    assert unseal(sent[SEALED], "token") == {"HELIOGRAPH_WEBHOOK_SECRET": SECRET}
    assert variables(folder, "train", HELIOGRAPH_WEBHOOK_SECRET=SECRET) == {}


def test_a_secret_is_not_sent_where_anyone_could_read_it(folder: Path) -> None:
    with pytest.raises(RequestError, match=r"MLFLOW_TRACKING_PASSWORD is set, .* authentication"):
        pack(folder, "train", "image", {"MLFLOW_TRACKING_PASSWORD": SECRET}, token="")
    settings = {"MLFLOW_TRACKING_URI": "http://tracking"}
    assert pack(folder, "train", "image", settings, token="").runtime_env["env_vars"] == {
        **settings,
        "RAY_JOB_STOP_WAIT_TIME_S": str(SECONDS_TO_STOP),
    }


def test_a_folder_that_is_too_large_is_refused_with_its_largest_files(folder: Path) -> None:
    (folder / ".gitignore").write_text("*.log\n")
    (folder / ".git").mkdir()
    (folder / "data").mkdir()
    for name, size in {".git/pack": 9, "a.log": 9, "data/a": 2, "data/b": 5, "c": 1}.items():
        (folder / name).write_bytes(b"x" * size * 2**20)
    look_through(folder).check_size(limit=9 * 2**20)
    with pytest.raises(RequestError) as error:
        look_through(folder).check_size(limit=7 * 2**20)
    said = str(error.value)
    assert "has 8 MiB to send, and 7 MiB can be" in said
    assert "files: data/b (5 MiB), data/a (2 MiB), c (1 MiB), " in said


def test_the_digest_is_that_of_what_is_sent(folder: Path) -> None:
    def code() -> str:
        return pack(folder, "train", "image", {}, "token").code

    before = code()
    (folder / "mlflow.db").write_text("not for the cluster")
    assert code() == before
    (folder / "recipe.yaml").write_text("name: another\n")
    assert code() != before


def test_what_looks_like_secrets_stays_here(folder: Path) -> None:
    """Named are those that git does not ignore; of a folder its name alone."""
    (folder / ".gitignore").write_text("*.pem\n")
    names = [".env", ".env.local", "a/server.key", "ignored.pem", ".ssh/id_rsa", ".ssh/config"]
    kept = ["a/key.py", "a/environment", "b/monkey"]
    for name in [*names, *kept]:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    sent = pack(folder, "train", "image", {}, "")
    assert sent.left_out == [".env", ".env.local", ".ssh", "a/server.key"]
    found = {str(path.relative_to(folder)) for path in look_through(folder).sizes}
    assert found == {"recipe.yaml", ".gitignore", *kept}
    (folder / ".env").write_text("PASSWORD=hunter2")
    assert pack(folder, "train", "image", {}, "").code == sent.code


def test_not_every_secret_is_named() -> None:
    names = [f"{number}.key" for number in range(12)]
    assert describe_left_out(names[:10]).endswith("8.key, 9.key")
    assert describe_left_out(names).endswith("8.key, 9.key and 2 more")


@pytest.mark.parametrize("tool", ["pip", "uv"])
def test_dependencies_in_their_tested_versions(tool: Any, folder: Path) -> None:
    packages = installed_by(tool, ROOT)[tool]["packages"]
    assert packages[0] == "-c ${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}/constraints.txt"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert packages[1:] == project["dependencies"]
    with pytest.raises(RequestError, match=rf"--env {tool} .* pyproject\.toml is not in"):
        installed_by(tool, folder)
