"""Commands as processes of their own, forked from one that has imported the command line: most of
what a short command takes is the start of Python, typer and pydantic.

Reads requests, a line of JSON each, and answers with the exit code; see tests/jobs/conftest.py.
"""

import json
import os
import runpy
import sys
import traceback
from pathlib import Path

import heliograph.jobs.cli

SLOW = ("torch", "ray", "mlflow", "datasets")
"""Libraries that take a second or more to load. None of them is loaded here."""


def main() -> None:
    assert heliograph.jobs.cli  # and with it all that short commands need
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            run(Path(request["answers"]), request["folder"], request["module"], request["words"])
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def run(answers: Path, folder: str, module: str, words: list[str]) -> None:
    """As `python -m MODULE WORDS`; does not return."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.dup2(os.open(answers / name, os.O_RDWR | os.O_CREAT), number)
    os.chdir(folder)
    sys.argv[1:] = words
    sys.modules.pop(module, None)  # as __main__ it is another
    code: object = 1
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    (answers / "loaded").write_text(" ".join(name for name in SLOW if name in sys.modules))
    os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    main()
