"""`heliograph translate MODEL`: standard input to standard output, or a data set to a data set."""

import io
import sys
from collections.abc import Iterator, Sequence
from itertools import count
from queue import Queue
from threading import Thread
from typing import Annotated, Any, BinaryIO, TextIO

import typer

import heliograph
from heliograph.jobs.command import Answer, Model, command, run_alone
from heliograph.jobs.evaluate import Configuration, Engine, Revision, SourceColumn, Split
from heliograph.pipeline.request.decoding import Bulk
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.request.model_uri import check_model
from heliograph.pipeline.request.recipe_file import parse_bulk, parse_decoding, parse_location

Settings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Decoding, other than the model's own: beam=1, n_best=3, length_penalty=0.6, …",
        show_default=False,
    ),
]
Input = Annotated[
    str | None,
    typer.Option(
        "--input",
        help="A data set to translate with Ray Data, instead of standard input: a hub name, a file "
        "or glob, or a YAML list, {source: FILE, target: FILE} or {stream: …}.",
    ),
]
Output = Annotated[
    str | None,
    typer.Option("--output", help="The folder or URL for its translations, as Parquet."),
]
MaxCharacters = Annotated[
    int | None,
    typer.Option(
        "--max-characters",
        help="A longer line is refused; a longer source of a data set is kept with an error.",
        show_default="as long as in training",
        min=1,
    ),
]
PartRows = Annotated[
    int | None,
    typer.Option(
        "--part-rows",
        help="Of a data set: rows of an output file.",
        show_default="a 64th of all, 256 to 32,768",
    ),
]
Prefix = Annotated[
    str,
    typer.Option("--prefix", help="Of a data set: put before the names of the new columns."),
]
Scores = Annotated[bool, typer.Option("--scores", help="Of a data set: add a column score.")]


@command
def translate(
    model: Model,
    settings: Settings = None,
    input_location: Input = None,
    output_folder: Output = None,
    source: SourceColumn = "source",
    split: Split = "test",
    configuration: Configuration = None,
    revision: Revision = None,
    engine: Engine = "torch",
    max_characters: MaxCharacters = None,
    part_rows: PartRows = None,
    prefix: Prefix = "",
    scores: Scores = False,
) -> Answer:
    """Translate each line of standard input, or a data set.

    Output line n is the translation of input line n; an empty line stays empty. Of a data set every
    row is kept, with all its columns, its translation and, if there is none, the error. The same
    command goes on where one was stopped.
    """
    if (input_location is None) != (output_folder is None):
        raise RequestError("--input and --output belong together: give both, or neither")
    decoding = settings or []
    parse_decoding(None, decoding)
    bulk = parse_bulk({"part_rows": part_rows, "prefix": prefix, "scores": scores})
    of_a_data_set = bulk != Bulk() or configuration is not None or revision is not None
    if input_location is None and of_a_data_set:
        raise RequestError(
            "--configuration, --revision, --part-rows, --prefix and --scores are about a data "
            "set: give --input and --output, too"
        )
    bulk = bulk.model_copy(update={"max_characters": max_characters})
    check_model(model)  # at once: what follows loads torch and MLflow
    if input_location and output_folder:
        location = parse_location("--input", input_location)
        done = heliograph.translate_dataset(
            model,
            location,
            output_folder,
            source,
            split,
            engine,
            decoding,
            bulk,
            configuration=configuration,
            revision=revision,
        )
        return Answer(describe_done(done), done)
    # Either may have been closed by whoever starts the command: then Python has None there.
    if sys.stdout is None:
        raise RequestError("standard output is closed: there is nowhere to write translations to")
    lines_in = io.BytesIO() if sys.stdin is None else sys.stdin.buffer
    with _lines(sys.stdout) as lines_out:
        sentences = translate_stream(model, lines_in, lines_out, engine, decoding, max_characters)
        return Answer("", {"sentences": sentences})


def describe_done(done: dict[str, Any]) -> str:
    """Where the translations are, and what has none."""
    failed = ", ".join(f"{reason} {count}" for reason, count in done["failed"].items())
    return f"{done['rows']} rows in {done['parts']} files in {done['output']}" + (
        f"; without a translation: {failed}" if failed else ""
    )


def _lines(stream: TextIO) -> TextIO:
    """Lines that end in \\n alone, on every platform: other separators are part of a sentence."""
    return open(stream.fileno(), "w", encoding="utf-8", newline="\n", closefd=False)


def translate_stream(
    model: str,
    source: BinaryIO,
    target: TextIO,
    engine: Engine = "torch",
    decoding: Sequence[str] = (),
    max_characters: int | None = None,
) -> int:
    """Line by line, as the lines come, many at once when many are waiting. Returns their number."""
    loaded = heliograph.load_model(model, engine, decoding, max_characters)
    if loaded.decoding.n_best > 1:
        raise RequestError(
            f"n_best {loaded.decoding.n_best}: standard output has one line for each of standard "
            "input; alternatives are for --input and --output"
        )
    done = 0
    for lines in waiting_lines(source, loaded.max_characters):
        for translation in loaded.translate(lines):
            # One line in, one line out, whatever the model says.
            target.write(translation.replace("\n", " ").replace("\r", " ") + "\n")
        target.flush()
        done += len(lines)
    return done


def waiting_lines(
    stream: BinaryIO, max_characters: int, at_most: int = 1024
) -> Iterator[list[str]]:
    """All lines that have come in, up to a number, as soon as there is one.

    A thread reads, so that a program that writes one line and waits for its translation gets it,
    while a file is translated in large batches.

    Raises:
        RequestError: a line is not UTF-8 or too long, or cannot be read; those before it have been
            given.
    """
    queue: Queue[str | Exception | None] = Queue(at_most)
    Thread(target=_read_into, args=(stream, max_characters, queue), daemon=True).start()
    end = False
    while not end:
        lines: list[str] = []
        while len(lines) < at_most and (not lines or not queue.empty()):
            line = queue.get()
            if not isinstance(line, str):
                end = True
                break
            lines.append(line)
        if lines:
            yield lines
        if end and isinstance(line, Exception):
            raise line


def _read_into(
    stream: BinaryIO, max_characters: int, queue: "Queue[str | Exception | None]"
) -> None:
    try:
        for line in _read_lines(stream, max_characters):
            queue.put(line)
        queue.put(None)
    except Exception as error:  # or else who waits for the next line would wait for ever
        queue.put(error)


def _read_lines(stream: BinaryIO, max_characters: int) -> Iterator[str]:
    most = 4 * max_characters + len("\r\n")  # bytes: a character has up to four
    for number in count(1):
        where = f"line {number} of standard input"
        try:
            line = stream.readline(most + 1)  # of one without an end not more than is needed
            text = line.decode("utf-8").rstrip("\r\n") if len(line) <= most else None
        except UnicodeDecodeError as error:
            raise RequestError(f"{where} is not UTF-8: {error.reason}") from error
        except (OSError, ValueError) as error:
            raise RequestError(f"{where} cannot be read: {error}") from error
        if not line:
            return
        if text is None or len(text) > max_characters:
            raise RequestError(
                f"{where} has more than {max_characters:,} characters, and the model was trained "
                "on none longer: shorten it, or let --max-characters say how many may be"
            )
        yield text


if __name__ == "__main__":
    run_alone(translate)
