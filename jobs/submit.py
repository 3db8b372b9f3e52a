"""`heliograph submit VERB …`: any verb as a job on a Ray cluster; its log and code are ours."""

import importlib
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

import typer

from heliograph.jobs.command import (
    FAILED,
    INTERRUPTED,
    Answer,
    AsJson,
    Debug,
    application,
    command,
    run_alone,
)
from heliograph.pipeline.request.errors import RequestError, did_you_mean
from heliograph.pipeline.request.recipe_file import load_recipe

if TYPE_CHECKING:
    from ray.job_submission import JobDetails

    from heliograph.pipeline.cluster.job_server import JobServer, Log

VERBS = (
    "demo", "prepare", "train", "evaluate", "export", "pin", "promote", "rollback", "history",
    "lineage", "notify", "translate", "serve", "sync", "storage", "doctor",
)  # fmt: skip

Verb = Annotated[str, typer.Argument(metavar="VERB", help=", ".join(VERBS))]
VerbArguments = Annotated[
    list[str] | None,
    typer.Argument(metavar="ARGUMENTS", help="As the verb takes them; `--` before its --help."),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="The cluster's job server, http://HEAD:8265.",
        show_default="RAY_API_SERVER_ADDRESS, RAY_ADDRESS, or the cluster on this machine",
    ),
]
Env = Annotated[
    Literal["image", "pip", "uv"],
    typer.Option(
        help="What the job finds installed: what its nodes have, or the versions of "
        "constraints.txt, by pip or uv."
    ),
]
Detach = Annotated[bool, typer.Option("--detach", help="Only start it, and leave.")]


@command
def submit(
    verb: Verb,
    arguments: VerbArguments = None,
    address: Address = None,
    env: Env = "image",
    detach: Detach = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> Answer:
    """Run a verb as a job on a Ray cluster, follow its log, and leave with its exit code.

    The current folder goes with the job. Ctrl-C asks whether the job is to stop; without a terminal
    it runs on. `train` is named after its recipe's job: the same command again follows it while it
    runs, and afterwards goes on where it was.
    """
    asked = check_request(verb, list(arguments or []))
    flags = ["--json"] * as_json + ["--debug"] * debug
    use_ray_token()
    from heliograph.pipeline.cluster import job_server, parcel, sealed

    if asked.recipe is not None:
        parcel.look_through(Path.cwd()).check_has(asked.recipe)
    server = job_server.connect(address, note)
    token = "" if server.takes_jobs_from_anyone() else sealed.ray_token()
    sent = parcel.pack(Path.cwd(), verb, env, os.environ, token)
    if sent.left_out:
        note(f"not sent, for it looks like secrets: {parcel.describe_left_out(sent.left_out)}")
    entrypoint = shlex.join(["python", "-m", f"heliograph.jobs.{verb}", *flags, *asked.words])
    job, new = job_server.submit(server, asked.stem, entrypoint, sent, alone=verb == "train")
    note(f"job {job}: {verb} {shlex.join(asked.words)}" if new else f"job {job} runs already")
    if detach:
        return Answer(server.ways_on(job), {"job": job, "new": new})
    # With --json our standard output is for the result; the log, which has it last, goes beside it.
    log = job_server.Log(sys.stderr if as_json else sys.stdout)
    return follow(server, job, log, may_stop=new)


def follow(server: "JobServer", job: str, log: "Log", *, may_stop: bool) -> Answer:
    """Show a job's log to its end.

    Args:
        may_stop: ask at an interrupt whether the job is to stop, too.
    """
    from heliograph.pipeline.cluster import job_server

    try:
        details = job_server.follow(server, job, log)
    except KeyboardInterrupt:
        if not (may_stop and _wants_to_stop(job)):
            return leave(server, job, f"job {job} runs on")
        try:
            note(f"job {job} is asked to stop; it takes a checkpoint first")
            server.stop_job(job)
            details = job_server.follow(server, job, log)
        except KeyboardInterrupt:
            return leave(server, job, f"job {job} was being stopped, and may run on")
    code = exit_code(details)
    if details.driver_exit_code is None:
        note(f"job {job}: {details.status.value}: {details.message}")
    result = {"job": job, "status": details.status.value, "exit_code": code}
    return Answer("", result | {"result": log.result()}, exit_code=code)


def leave(server: "JobServer", job: str, why: str) -> Answer:
    """The answer to an interrupt: what becomes of the job, and how to go on."""
    note(f"{why}; {server.ways_on(job)}")
    result: dict[str, Any] = {"job": job, "status": "RUNNING", "exit_code": None}
    return Answer("", result | {"result": None}, exit_code=INTERRUPTED)


def exit_code(details: "JobDetails") -> int:
    """A job's exit code: its driver's; 128 + n after signal n, as shells have it; 130 if it was
    stopped; else 1."""
    code = details.driver_exit_code
    if details.status == "SUCCEEDED":
        return 0
    if details.status == "STOPPED":
        return INTERRUPTED
    if code is None or code == 0:
        return FAILED  # it never started
    return int(code) if code > 0 else 128 - int(code)


def _wants_to_stop(job: str) -> bool:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    try:
        return typer.confirm(f"\nStop job {job}? Otherwise it runs on.", err=True)
    except (typer.Abort, KeyboardInterrupt):
        return False


@dataclass(frozen=True)
class Asked:
    """What a job is to do, and what it is named after."""

    stem: str
    words: Sequence[str]
    """The verb's arguments, as they hold in the folder that is sent."""
    recipe: str | None = None
    """Within that folder."""


def check_request(verb: str, words: Sequence[str]) -> Asked:
    """Find mistakes here, before anything is sent: an unknown verb, its arguments, its recipe.

    Raises:
        RequestError: the verb or the recipe is wrong, or the job would not have what it names.
        click's UsageError: the verb does not take these arguments.
    """
    if verb not in VERBS:
        raise RequestError(f"verb {verb!r} is unknown; {did_you_mean(verb, VERBS)}")
    function = getattr(importlib.import_module(f"heliograph.jobs.{verb}"), verb)
    parser = typer.main.get_command(application(function))
    with parser.make_context(f"heliograph {verb}", list(words)) as context:
        given = context.params
    asked = Asked(verb, words)
    if given.get("recipe") is not None:
        asked = _with_recipe(verb, words, given)
    if verb == "translate" and given["input_location"] is None:
        raise RequestError(
            "standard input does not travel: give --input and --output, for a data set and a "
            "folder that the nodes reach"
        )
    _check_output(given.get("output_folder") or given.get("output"))
    server = os.environ.get("MLFLOW_TRACKING_URI")
    if server is None:
        note(
            "MLFLOW_TRACKING_URI is not set here: if the cluster has none, training on several "
            "nodes is refused, and of training on a single one the run is not kept"
        )
    elif urlsplit(server).hostname in ("localhost", "127.0.0.1", "::1"):
        note(f"MLFLOW_TRACKING_URI {server}: there, that is each node itself")
    return asked


def _with_recipe(verb: str, words: Sequence[str], given: Mapping[str, Any]) -> Asked:
    path = given["recipe"]
    recipe = load_recipe(path, given["overrides"])
    if "://" not in recipe.storage and not os.path.isabs(recipe.storage):
        note(f"storage {recipe.storage!r} is relative: it goes with the job's folder")
    there = _in_folder(path)
    stem = recipe.job_id if verb == "train" else f"{recipe.job_id}-{verb}"
    return Asked(stem, [there if word == path else word for word in words], there)


def _in_folder(path: str) -> str:
    """A file's place in the folder that is sent, through links to that or not."""
    whole, folder = Path(os.path.abspath(path)), Path.cwd()
    for place in (whole, whole.parent.resolve() / whole.name):
        if place.is_relative_to(folder):
            return str(place.relative_to(folder))
    raise RequestError(
        f"recipe {path!r} is not in {str(folder)!r}, which is what the job has; valid: a recipe in "
        "the folder that you submit from"
    )


def _check_output(folder: str | None) -> None:
    """Raises RequestError for one that nobody would find."""
    if folder is not None and "://" not in folder and not os.path.isabs(folder):
        raise RequestError(
            f"--output {folder!r} is relative, and would end with the job's own folder; valid: an "
            "absolute path that the nodes reach, or a URL"
        )


def use_ray_token() -> None:
    """Let Ray send the token that this machine has for it; to be called before Ray is imported.

    Left to itself its job client sends one only if RAY_AUTH_MODE says so.
    """
    kept = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
    if "RAY_AUTH_MODE" not in os.environ and ("RAY_AUTH_TOKEN" in os.environ or kept.is_file()):
        os.environ["RAY_AUTH_MODE"] = "token"


def note(text: str) -> None:
    """Say something beside the answer."""
    print(f"heliograph: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_alone(submit)
