"""What all commands share: the exit codes, errors in one line, --json and --debug.

A verb is a function decorated with `command`. It parses, calls the pipeline and returns an
`Answer`; everything else about talking to people and scripts is here.
"""

import functools
import inspect
import io
import json
import logging
import os
import secrets
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from heliograph.pipeline.request.errors import RequestError

SEALED = "HELIOGRAPH_SEALED"
"""What a job on a cluster has its secrets in; see `cluster.sealed`, which takes time to load."""
DONE, FAILED, REQUEST_WAS_WRONG, GATE_SAID_NO, INTERRUPTED = 0, 1, 2, 3, 130

AsJson = Annotated[bool, typer.Option("--json", help="End with one line of JSON: the result.")]
Debug = Annotated[
    bool, typer.Option("--debug", help="Show tracebacks and the libraries' own messages.")
]
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="models:/NAME@champion, models:/NAME/3, runs:/ID/PATH or a checkpoint folder.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY.PATH=VALUE", help="Overrides, such as train.steps=100.", show_default=False
    ),
]


@dataclass(frozen=True)
class Answer:
    """What a verb found out: for people (`text`) and, with --json, for scripts (`result`)."""

    text: str
    result: Mapping[str, Any]
    exit_code: int = DONE


def command(verb: Callable[..., Answer]) -> Callable[..., None]:
    """Give a verb the options --json and --debug, print its answer, leave with its exit code.

    A verb that wants to know the options itself declares `as_json` and `debug`.
    """
    signature = inspect.signature(verb)
    own = set(signature.parameters)

    @functools.wraps(verb)
    def run(as_json: bool, debug: bool, **arguments: Any) -> None:
        if not debug:
            mute_libraries()
        if SEALED in os.environ:
            from heliograph.pipeline.cluster.sealed import unseal_environment

            unseal_environment()
        # Whoever names a cluster has its token.
        if verb.__name__ not in _OF_A_CLUSTER and not arguments.get("address"):
            protect_local_ray()
        options = {"as_json": as_json, "debug": debug}
        arguments |= {name: options[name] for name in options if name in own}
        try:
            with _termination_as_interrupt():
                answer = verb(**arguments)
        except (BrokenPipeError, typer.Exit, typer.TyperException):
            raise  # typer knows what to say: the reader went away, --help, a wrong argument
        except KeyboardInterrupt:
            _report("interrupted", debug)
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            code, message = describe(error)
            _report(message if debug or code != FAILED else f"{message} {_HINT}", debug)
            raise typer.Exit(code) from None
        _print(answer, as_json)
        raise typer.Exit(answer.exit_code)

    added = [option for option in _OPTIONS if option.name not in own]
    parameters = [*signature.parameters.values(), *added]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return run


def _print(answer: Answer, as_json: bool) -> None:
    """On any terminal: what its encoding lacks is escaped, in JSON as JSON does it."""
    if sys.stdout is None:  # whoever started the command has closed it
        return
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if answer.text:
        print(answer.text, flush=True)
    if as_json:
        is_unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
        print(json.dumps(answer.result, ensure_ascii=not is_unicode), flush=True)


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """To be asked to end is to be interrupted: both stop cleanly, and exit with 130."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


_OPTIONS = [
    inspect.Parameter(
        name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=False, annotation=option
    )
    for name, option in (("as_json", AsJson), ("debug", Debug))
]
_OF_A_CLUSTER = ("submit", "status", "logs", "stop")
"""Verbs that start no Ray, and need the cluster's own token."""
_HINT = "(run again with --debug for the traceback)"


def describe(error: BaseException) -> tuple[int, str]:
    """The exit code and the one line for an error, looking through what Ray wrapped around it."""
    chain = [error]
    while (inner := _inner(chain[-1])) is not None and inner not in chain:
        chain.append(inner)
    for link in chain:
        # Ray's copy of a remote RequestError is one too, but says its whole remote traceback.
        if isinstance(link, RequestError) and _inner(link) is None:
            return REQUEST_WAS_WRONG, " ".join(str(link).split())
    if isinstance(error, RequestError):
        return REQUEST_WAS_WRONG, " ".join(str(error).split())
    lines = str(chain[-1]).strip().splitlines()
    return FAILED, ": ".join([type(chain[-1]).__name__, *lines[:1]])


def _inner(error: BaseException) -> BaseException | None:
    cause = getattr(error, "cause", None) or error.__cause__
    return cause if isinstance(cause, BaseException) else None


def _report(message: str, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    print(f"heliograph: error: {message}", file=sys.stderr, flush=True)


def mute_libraries() -> None:
    """Keep banners, telemetry and warnings that nobody here can act on off the terminal.

    Set before the libraries are imported, because that is when they read it; a variable that the
    user has set wins.
    """
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "ERROR",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "RAY_USAGE_STATS_ENABLED": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "GIT_PYTHON_REFRESH": "quiet",
        "PYTHONWARNINGS": "ignore",  # for the processes that Ray starts
    }.items():
        os.environ.setdefault(name, value)
    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)  # Ray's modules set their own level when they are imported
    for library in ("mlflow", "alembic", "datasets", "huggingface_hub", "urllib3"):
        logging.getLogger(library).setLevel(logging.ERROR)


def protect_local_ray() -> None:
    """Give a Ray that starts on this machine a token of its own, before it is imported.

    Ray listens on all interfaces and runs what it is sent. Left to itself it keeps a token in the
    home folder, and every later `ray start` there would demand that one.
    """
    if not os.environ.get("RAY_ADDRESS") and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def application(*verbs: Callable[..., None]) -> typer.Typer:
    """The typer application of these verbs, in plain text."""
    app = typer.Typer(
        help="Trains sequence-to-sequence models on Ray, tracked and promoted in MLflow.",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        no_args_is_help=len(verbs) > 1,
    )
    for verb in verbs:
        # submit passes on the options that are its verb's.
        app.command(context_settings={"ignore_unknown_options": verb.__name__ == "submit"})(verb)
    return app


def run_alone(verb: Callable[..., None]) -> None:
    """`python -m heliograph.jobs.VERB`: the same as `heliograph VERB`."""
    application(verb)(prog_name=f"heliograph {verb.__name__}")
