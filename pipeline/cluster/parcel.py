"""What goes to a cluster with a job: the working tree, the environment, settings and secrets."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import _dir_travel, _get_excludes, get_uri_for_directory

from heliograph.pipeline.cluster.checkout import SENT, find_checkout
from heliograph.pipeline.cluster.sealed import SEALED, seal
from heliograph.pipeline.request.errors import RequestError

Tool = Literal["image", "pip", "uv"]
"""What a job finds installed: what its nodes have, or what one of these two installs for it."""

SIZE_LIMIT = 100 * 2**20
"""Bytes: what Ray's job server takes in one request, and more than code and recipes ever are."""
LARGEST_NAMED = 5

# What runs and tools leave in a folder, beside what .gitignore and .rayignore name.
NOT_SENT = [
    ".git", ".venv", "__pycache__", "*.egg-info", ".*_cache", ".hypothesis",
    "mlflow.db*", "mlartifacts", "mlruns", "heliograph-storage",
]  # fmt: skip

# What holds secrets by its name, whether or not git ignores it. Who runs jobs reads their folders.
SECRET_FILES = [
    ".env", ".env.*", ".envrc", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.ppk", "*.kdbx",
    "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", ".ssh", ".gnupg", ".aws", ".azure", ".kube",
    ".ray", ".mlflow", ".netrc", "_netrc", ".git-credentials", ".pypirc", ".npmrc", ".pgpass",
    ".vault-token", "**/.docker/config.json", "application_default_credentials.json",
]  # fmt: skip
SECRETS_NAMED = 10

# Never RAY_AUTH_MODE: set for a job alone, its workers could not talk to the cluster.
SETTINGS = (
    "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_NAME", "HF_ENDPOINT",
)  # fmt: skip
SECRETS = (
    "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "HF_TOKEN",
)  # fmt: skip
SECRETS_OF_VERBS = {
    "notify": ("HELIOGRAPH_WEBHOOK_SECRET",),
    "serve": ("HELIOGRAPH_SERVE_TOKEN",),
}

SECONDS_TO_STOP = 660
"""For a job's last checkpoint; left to itself Ray kills after 3 seconds who was asked to stop."""


@dataclass(frozen=True)
class Parcel:
    """What a job runs in: code, environment and variables."""

    code: str
    """Digest of the working tree, as Ray names it."""
    runtime_env: dict[str, Any]
    left_out: Sequence[str] = ()
    """What looks like a secret, and would have been sent but for that."""


def pack(folder: Path, verb: str, tool: Tool, environment: Mapping[str, str], token: str) -> Parcel:
    """Everything that is sent with a verb.

    Args:
        environment: where settings and secrets are looked for.
        token: the cluster's; "": it takes jobs from anyone.

    Raises:
        RequestError: the folder is too large or lacks what `tool` reads; a secret would be sent to
            a cluster that does not keep it.
    """
    contents = look_through(folder)
    contents.check_size()
    settings, secrets = _variables(environment, verb)
    if (checkout := find_checkout(folder)) is not None:
        settings[SENT] = str(checkout)
    variables = settings | {"RAY_JOB_STOP_WAIT_TIME_S": str(SECONDS_TO_STOP)}
    runtime_env: dict[str, Any] = {
        "working_dir": str(folder),
        "excludes": [*NOT_SENT, *SECRET_FILES],
    }
    if secrets:
        if not token:
            raise RequestError(
                f"{', '.join(secrets)} is set, and this cluster takes jobs from anyone, so anyone "
                "could read it there; turn on Ray's token authentication, or unset it here and set "
                "it on the nodes"
            )
        variables[SEALED] = seal(secrets, token)
        runtime_env["worker_process_setup_hook"] = (
            "heliograph.pipeline.cluster.sealed.unseal_environment"
        )
    code = get_uri_for_directory(
        str(folder), include_gitignore=True, excludes=[*_excludes(), *SECRET_FILES]
    )
    runtime_env |= {"env_vars": variables} | installed_by(tool, folder)
    return Parcel(code, runtime_env, contents.left_out)


@dataclass(frozen=True)
class Contents:
    """What of a folder is sent, and what only its name keeps here."""

    folder: Path
    sizes: Mapping[Path, int]
    """Of each file, in bytes."""
    left_out: Sequence[str]
    """What looks like a secret and is not ignored; a folder by its name alone."""

    def check_size(self, limit: int = SIZE_LIMIT) -> None:
        """Raises RequestError, with the largest files, for more bytes than can be sent."""
        total = sum(self.sizes.values())
        if total <= limit:
            return
        largest = sorted(self.sizes, key=lambda path: -self.sizes[path])[:LARGEST_NAMED]
        named = ", ".join(
            f"{path.relative_to(self.folder)} ({_mib(self.sizes[path])})" for path in largest
        )
        raise RequestError(
            f"folder {str(self.folder)!r} has {_mib(total)} to send, and {_mib(limit)} can be; the "
            f"largest files: {named}. Put data where the nodes reach them, and name here what is "
            "not to be sent in .gitignore or .rayignore"
        )

    def check_has(self, recipe: str) -> None:
        """Raises RequestError if a recipe in the folder is not sent."""
        if self.folder / recipe not in self.sizes:
            raise RequestError(
                f"recipe {recipe!r} would not be there: it is in the folder that is sent, and "
                ".gitignore, .rayignore or a name that looks like a secret's keeps it here; valid: "
                "a recipe that git does not ignore"
            )


def look_through(folder: Path) -> Contents:
    """Find out what of the folder is sent, as Ray does."""
    sizes: dict[Path, int] = {}
    left_out: list[Path] = []
    looks_secret = _get_excludes(folder, SECRET_FILES)

    def look(path: Path) -> None:
        if looks_secret(path):
            # Ray comes to what is in a folder after the folder.
            if not left_out or left_out[-1] not in path.parents:
                left_out.append(path)
        elif path.is_file():
            sizes[path] = path.stat().st_size

    _dir_travel(folder, [_get_excludes(folder, _excludes())], look, include_gitignore=True)
    return Contents(folder, sizes, sorted(str(path.relative_to(folder)) for path in left_out))


def describe_left_out(left_out: Sequence[str]) -> str:
    """Which they are, but not more than a few."""
    more = len(left_out) - SECRETS_NAMED
    named = ", ".join(left_out[:SECRETS_NAMED])
    return f"{named} and {more} more" if more > 0 else named


def installed_by(tool: Tool, folder: Path) -> dict[str, Any]:
    """What Ray is told to install: the project's dependencies in its tested versions.

    Raises:
        RequestError: the folder is not the project's.
    """
    if tool == "image":
        return {}
    for name in ("pyproject.toml", "constraints.txt"):
        if not (folder / name).is_file():
            raise RequestError(
                f"--env {tool} installs by pyproject.toml and constraints.txt, and {name} is not "
                f"in {str(folder)!r}; submit from the project's folder, or with --env image"
            )
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    constraints = "-c ${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}/constraints.txt"
    return {tool: {"packages": [constraints, *project["dependencies"]]}}


def _variables(environment: Mapping[str, str], verb: str) -> tuple[dict[str, str], dict[str, str]]:
    """Settings and secrets that are passed on; an address that holds a password is one."""
    found = {name: environment[name] for name in SETTINGS if name in environment}
    secrets = {name: value for name, value in found.items() if urlsplit(value).password}
    for name in (*SECRETS, *SECRETS_OF_VERBS.get(verb, ())):
        if environment.get(name):
            secrets[name] = environment[name]
    return {name: value for name, value in found.items() if name not in secrets}, secrets


def _excludes() -> list[str]:
    return [*get_runtime_env_default_excludes(), *NOT_SENT]


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
