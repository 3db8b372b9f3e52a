"""Exit codes, one-line errors and the last line of --json, in the one place where they are made."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from heliograph.jobs.command import Answer, application, command
from heliograph.pipeline.request.errors import RequestError
from tests.jobs.conftest import ROOT, run_command


@pytest.fixture(autouse=True)
def _own_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands mute libraries in their process; here that is the tests' own."""
    monkeypatch.setattr("heliograph.jobs.command.mute_libraries", lambda: None)


def run(behave: Callable[[], Answer], *words: str) -> Result:
    @command
    def verb() -> Answer:
        return behave()

    return CliRunner().invoke(application(verb), list(words))


def failing(error: BaseException) -> Callable[[], Answer]:
    def behave() -> Answer:
        raise error

    return behave


def test_json_is_the_last_line() -> None:
    done = run(lambda: Answer("two\nlines", {"score": 1.5, "word": "schön"}), "--json")
    assert done.exit_code == 0
    *text, last = done.stdout.splitlines()
    assert text == ["two", "lines"]
    assert json.loads(last) == {"score": 1.5, "word": "schön"}


def test_people_see_no_json() -> None:
    assert run(lambda: Answer("done", {"score": 1.5})).stdout == "done\n"


def test_the_verb_chooses_the_exit_code() -> None:
    done = run(lambda: Answer("not better", {"promoted": False}, exit_code=3), "--json")
    assert done.exit_code == 3
    assert json.loads(done.stdout.splitlines()[-1]) == {"promoted": False}


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (
            RequestError("train.steps: 'many'\n  is no number"),
            2,
            "train.steps: 'many' is no number",
        ),
        (OSError("disk full"), 1, "OSError: disk full (run again with --debug for the traceback)"),
        (
            RuntimeError("one\ntwo"),
            1,
            "RuntimeError: one (run again with --debug for the traceback)",
        ),
        (AssertionError(), 1, "AssertionError (run again with --debug for the traceback)"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_errors_are_one_line(error: BaseException, code: int, line: str) -> None:
    done = run(failing(error), "--json")
    assert done.exit_code == code
    assert done.stderr == f"heliograph: error: {line}\n"
    assert done.stdout == ""


@pytest.mark.parametrize(("error", "code"), [(RequestError("no"), 2), (OSError("no"), 1)])
def test_debug_shows_the_traceback_and_keeps_the_code(error: Exception, code: int) -> None:
    done = run(failing(error), "--debug")
    assert done.exit_code == code
    assert done.stderr.startswith("Traceback (most recent call last):")
    assert "in behave" in done.stderr


def test_a_request_error_is_one_through_a_library_s_wrapping() -> None:
    def behave() -> Answer:
        try:
            raise RequestError("column 'fr' is not there")
        except RequestError as error:
            raise RuntimeError("the worker group failed") from error

    done = run(behave)
    assert (done.exit_code, done.stderr) == (2, "heliograph: error: column 'fr' is not there\n")


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(
    ("kind", "code", "line"),
    [
        (RequestError, 2, "lost 40 % of its rows"),
        (OSError, 1, "OSError: lost 40 % of its rows (run again with --debug for the traceback)"),
    ],
)
def test_an_error_in_a_ray_task_is_said_as_if_it_were_here(
    kind: type[Exception], code: int, line: str
) -> None:
    import ray

    @ray.remote
    def task() -> None:
        raise kind("lost 40 % of its rows")

    def behave() -> Answer:
        ray.get(task.remote())
        raise AssertionError("not reached")

    done = run(behave)
    assert (done.exit_code, done.stderr) == (code, f"heliograph: error: {line}\n")


def test_libraries_are_muted_unless_the_user_has_said_otherwise() -> None:
    script = (
        "import logging, os; from heliograph.jobs.command import mute_libraries; mute_libraries(); "
        "print(os.environ['MLFLOW_DISABLE_TELEMETRY'], os.environ['RAY_USAGE_STATS_ENABLED'],"
        " 'RAY_AUTH_MODE' in os.environ, logging.getLogger('mlflow').level); "
        "from ray.dashboard.modules import dashboard_sdk; dashboard_sdk.logger.info('uploading'); "
        "dashboard_sdk.logger.error('lost')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["true", "1", "False", str(logging.ERROR)]
    assert "lost" in done.stderr
    assert "uploading" not in done.stderr


UMLAUTS = """
from heliograph.jobs.command import Answer, command, run_alone
@command
def verb() -> Answer:
    return Answer("größe", {"word": "größe"})
run_alone(verb)
"""


def test_a_terminal_of_ascii_is_told_all_of_it(folder: Path) -> None:
    """An old container's, or cron's (issue 15, 16)."""
    done = run_command(
        ["-c", UMLAUTS, "--json"], folder, {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    )
    assert done.exit_code == 0, done.stderr
    text, result = done.stdout.splitlines()
    assert text == r"gr\xf6\xdfe"
    assert json.loads(result) == {"word": "größe"}


def test_nowhere_to_write_is_no_error_of_the_verb(folder: Path) -> None:
    words = [sys.executable, "-c", UMLAUTS]
    closed = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *words], cwd=ROOT, capture_output=True, text=True
    )
    assert (closed.returncode, closed.stderr) == (0, "")
