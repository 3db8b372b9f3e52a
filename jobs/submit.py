"""`heliograph submit VERB …`: any verb as a job on a Ray cluster; its log and code are ours."""

import asyncio
import importlib
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.command import FAILED, Answer, AsJson, Debug, application, command, run_alone
from pipeline.errors import RequestError, did_you_mean
from pipeline.recipe_file import load_recipe

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

VERBS = ("demo", "prepare", "train", "evaluate", "promote", "rollback", "translate", "sync")

# What the job needs of this folder is code, recipes and small data; Ray refuses more than 500 MiB.
NOT_SENT = [
    ".git", ".venv", "__pycache__", "*.egg-info", ".*_cache", ".hypothesis",
    "mlflow.db*", "mlartifacts", "mlruns", "heliograph-storage",
]  # fmt: skip

# Never RAY_AUTH_MODE: set for a job alone, its workers could not talk to the cluster.
PASSED_ON = (
    "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "HF_TOKEN", "HF_ENDPOINT",
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


@command
def submit(
    verb: Verb,
    arguments: VerbArguments = None,
    address: Address = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> Answer:
    """Run a verb as a job on a Ray cluster, follow its log, and leave with its exit code.

    The current folder goes with the job. Interrupting this command leaves the job running.
    """
    words = list(arguments or [])
    check_request(verb, words)
    flags = ["--json"] * as_json + ["--debug"] * debug
    client = connect(address)
    job = client.submit_job(
        entrypoint=shlex.join(["python", "-m", f"jobs.{verb}", *flags, *words]),
        runtime_env=runtime_environment(os.environ),
    )
    print(f"job {job}: {verb} {shlex.join(words)}", file=sys.stderr, flush=True)
    # With --json our standard output is for the result; the log, which has it last, goes beside it.
    log = LogWriter(sys.stderr if as_json else sys.stdout)
    details = follow(client, job, log.write)
    code = exit_code(details)
    if details.driver_exit_code is None:
        print(f"job {job}: {details.status}: {details.message}", file=sys.stderr, flush=True)
    result = {"job": job, "status": str(details.status), "exit_code": code, "result": log.result()}
    return Answer("", result, exit_code=code)


def check_request(verb: str, words: Sequence[str]) -> None:
    """Find mistakes here, before anything is sent: an unknown verb, its arguments, its recipe.

    Raises:
        RequestError: the verb or the recipe is wrong.
        click's UsageError: the verb does not take these arguments.
    """
    if verb not in VERBS:
        raise RequestError(f"verb {verb!r} is unknown; {did_you_mean(verb, VERBS)}")
    function = getattr(importlib.import_module(f"jobs.{verb}"), verb)
    parser = typer.main.get_command(application(function))
    with parser.make_context(f"heliograph {verb}", list(words)) as context:
        if verb in ("prepare", "train", "sync"):
            recipe = load_recipe(context.params["recipe"], context.params["overrides"])
            if "://" not in recipe.storage and not os.path.isabs(recipe.storage):
                _note(f"storage {recipe.storage!r} is relative: it goes with the job's folder")
    if "MLFLOW_TRACKING_URI" not in os.environ:
        _note("MLFLOW_TRACKING_URI is not set here: if the cluster has none, the run is not kept")


def _note(text: str) -> None:
    print(f"heliograph: note: {text}", file=sys.stderr, flush=True)


def connect(address: str | None) -> "JobSubmissionClient":
    """The job server's client; raises RequestError when nothing answers at the address."""
    if address:
        # Ray lets these variables win over its argument; what was just typed should win over both.
        os.environ["RAY_API_SERVER_ADDRESS"] = address
    from ray.job_submission import JobSubmissionClient

    try:
        return JobSubmissionClient(address)
    except ConnectionError as error:
        where = address or "RAY_API_SERVER_ADDRESS, RAY_ADDRESS or on this machine"
        raise RequestError(
            f"no Ray job server answers at {where}; give --address http://HEAD:8265"
        ) from error


def runtime_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """What travels with the job: this folder without what runs leave behind, and a few variables.

    Secrets go this way only, never into the command line, which every cluster user can read.
    """
    return {
        "working_dir": os.getcwd(),
        "excludes": NOT_SENT,
        "env_vars": {name: environment[name] for name in PASSED_ON if name in environment},
    }


class LogWriter:
    """Shows a job's log as it comes and remembers its last line, which holds a --json result."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._tail = ""

    def write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
        self._tail = (self._tail + text)[-1_000_000:]

    def result(self) -> Any:
        """The JSON object in the log's last line, or None."""
        lines = self._tail.strip().splitlines()
        try:
            value = json.loads(lines[-1]) if lines else None
        except ValueError:
            return None
        return value if isinstance(value, dict) else None


def follow(
    client: "JobSubmissionClient", job: str, write: Callable[[str], None], pause: float = 1.0
) -> "JobDetails":
    """Write a job's log until the job has ended; returns what the job API says about its end.

    The stream of the log can break off while the job runs (ray#57002), and end before the last
    lines: it is taken up where it stopped, and the state comes from the job API alone.
    """
    written = 0
    while True:
        written = asyncio.run(_write_from(client, job, written, write))
        details = client.get_job_info(job)
        if details.status.is_terminal():
            write(client.get_job_logs(job)[written:])
            return details
        time.sleep(pause)


async def _write_from(
    client: "JobSubmissionClient", job: str, start: int, write: Callable[[str], None]
) -> int:
    """Write the log from a character on, as long as it streams; returns how far it got."""
    end = 0
    try:
        async for text in client.tail_job_logs(job):
            end += len(text)
            if end > start:
                write(text[max(0, start - end + len(text)) :])
    except (RuntimeError, OSError):
        pass  # the caller asks the job API whether the job has ended
    return max(start, end)


def exit_code(details: "JobDetails") -> int:
    """A job's exit code: its driver's; 128 + n after signal n, as shells have it; else 1."""
    code = details.driver_exit_code
    if str(details.status) == "SUCCEEDED":
        return 0
    if code is None or code == 0:
        return FAILED  # stopped, or it never started
    return int(code) if code > 0 else 128 - int(code)


if __name__ == "__main__":
    run_alone(submit)
