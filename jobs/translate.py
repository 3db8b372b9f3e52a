"""`heliograph translate MODEL`: standard input to standard output, or a data set to a data set."""

import sys
from collections.abc import Iterator
from queue import Queue
from threading import Thread
from typing import Annotated, Literal, TextIO

import typer
import yaml

from jobs.command import Answer, Model, command, run_alone
from jobs.evaluate import SourceColumn, Split
from pipeline.errors import RequestError
from pipeline.model_uri import check_model

Input = Annotated[
    str | None,
    typer.Option(
        "--input", help="A data set to translate with Ray Data, instead of standard input."
    ),
]
Output = Annotated[
    str | None, typer.Option("--output", help="The folder for its translations, as Parquet.")
]
KeptColumn = Annotated[
    str | None, typer.Option("--target", help="A column to keep beside it, such as a reference.")
]


@command
def translate(
    model: Model,
    input_location: Input = None,
    output_folder: Output = None,
    source: SourceColumn = "source",
    target: KeptColumn = None,
    split: Split = "test",
) -> Answer:
    """Translate each line of standard input, or a data set.

    Output line n is the translation of input line n; an empty line stays empty.
    """
    if (input_location is None) != (output_folder is None):
        raise RequestError("--input and --output belong together: give both, or neither")
    check_model(model)  # at once: what follows loads torch and MLflow
    if input_location and output_folder:
        from pipeline.translate_dataset import translate_dataset

        location = yaml.safe_load(input_location)
        rows = translate_dataset(model, location, output_folder, source, target, split)
        return Answer(f"{rows} rows in {output_folder}", {"rows": rows, "output": output_folder})
    with _lines(sys.stdin, "r") as lines_in, _lines(sys.stdout, "w") as lines_out:
        return Answer("", {"sentences": translate_stream(model, lines_in, lines_out)})


def _lines(stream: TextIO, mode: Literal["r", "w"]) -> TextIO:
    """Lines that end in \\n alone, on every platform: other separators are part of a sentence."""
    return open(stream.fileno(), mode, encoding="utf-8", newline="\n", closefd=False)


def translate_stream(model: str, source: TextIO, target: TextIO) -> int:
    """Line by line, as the lines come, many at once when many are waiting. Returns their number."""
    from pipeline.use import load_translator

    translator, settings = load_translator(model)
    count = 0
    for lines in waiting_lines(source):
        for translation in translator.translate(lines, settings):
            # One line in, one line out, whatever the model says.
            target.write(translation.replace("\n", " ").replace("\r", " ") + "\n")
        target.flush()
        count += len(lines)
    return count


def waiting_lines(stream: TextIO, at_most: int = 1024) -> Iterator[list[str]]:
    """All lines that have come in, up to a number, as soon as there is one.

    A thread reads, so that a program that writes one line and waits for its translation gets it,
    while a file is translated in large batches.

    Raises:
        RequestError: the stream is not UTF-8.
    """
    queue: Queue[str | Exception | None] = Queue(at_most)
    Thread(target=_read_into, args=(stream, queue), daemon=True).start()
    end = False
    while not end:
        lines: list[str] = []
        while len(lines) < at_most and (not lines or not queue.empty()):
            line = queue.get()
            if isinstance(line, Exception):
                raise line
            if line is None:
                end = True
                break
            lines.append(line)
        if lines:
            yield lines


def _read_into(stream: TextIO, queue: "Queue[str | Exception | None]") -> None:
    count = 0
    try:
        for line in stream:
            queue.put(line.rstrip("\r\n"))
            count += 1
    except UnicodeDecodeError as error:
        queue.put(RequestError(f"standard input is not UTF-8 after line {count}: {error.reason}"))
    else:
        queue.put(None)


if __name__ == "__main__":
    run_alone(translate)
