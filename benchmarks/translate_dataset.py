"""A data set's translation through Ray Data beside the same engine called directly.

    python benchmarks/translate_dataset.py MODEL captions.parquet --source en

The data set's sentences, repeated and varied up to --sentences, are translated in one run, on the
same cores, with the same settings: by the engine in one process with as many threads as there are
cores, which gets all sentences at once and sorts them by length; and by what `heliograph translate`
calls for --input and --output, in all: looking through the input, starting and loading the actors,
reading, translating and writing. Loading the model does not count for the direct call, and starting
Ray for neither. All translations are compared, string by string.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # Run as a file: the repository's root is not on the path.
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import pyarrow as pa
import pyarrow.parquet as pq

from heliograph.jobs.command import mute_libraries, protect_local_ray


def main() -> None:
    arguments = parse_arguments()
    if arguments.direct:
        print(json.dumps(direct(arguments, arguments.direct)))
        return
    mute_libraries()
    protect_local_ray()
    from heliograph.pipeline.registry.registry import fetch_model

    arguments.model = fetch_model(arguments.model, arguments.engine)
    with tempfile.TemporaryDirectory() as folder:
        write_sentences(arguments, f"{folder}/sentences.parquet")
        command = [sys.executable, os.path.abspath(__file__), *sys.argv[1:], "--direct", folder]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        result = json.loads(done.stdout.splitlines()[-1]) | through_ray(arguments, folder)
        result["differing"] = differing(folder)
    result["share"] = result["ray_per_second"] / result["direct_per_second"]
    for key, value in result.items():
        print(f"{key:<24} {value:,.3f}" if isinstance(value, float) else f"{key:<24} {value}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("data", help="a file that the data plane reads")
    parser.add_argument("settings", nargs="*", help="decoding: beam=1 …")
    parser.add_argument("--source", default="source", help="column of the data")
    parser.add_argument("--sentences", type=int, default=100_000)
    parser.add_argument("--engine", default="torch")
    parser.add_argument("--direct", metavar="FOLDER", help=argparse.SUPPRESS)
    return parser.parse_args()


def write_sentences(arguments: argparse.Namespace, path: str) -> None:
    """The data's sentences, then again with a number behind each, and so on."""
    from heliograph.pipeline.request.data import Data
    from heliograph.pipeline.sources.source import find_source

    data = Data(train="-", validation="-", source=arguments.source, target=arguments.source)
    found = [
        text
        for table in find_source(arguments.data, data, "train").tables(0)
        for text in table["source"].to_pylist()
        if text
    ]
    texts = [
        text if number < len(found) else f"{text} {number // len(found)}"
        for number, text in enumerate(islice(cycle(found), arguments.sentences))
    ]
    pq.write_table(pa.table({"id": range(len(texts)), "source": texts}), path)


def direct(arguments: argparse.Namespace, folder: str) -> dict[str, Any]:
    """The engine alone."""
    import torch

    from heliograph.pipeline.checkpoints.model_folder import read_settings
    from heliograph.pipeline.registry.registry import fetch_model
    from heliograph.pipeline.request.recipe_file import parse_decoding
    from heliograph.pipeline.translation.engines import open_engine

    torch.set_num_threads(os.cpu_count() or 1)
    model = fetch_model(arguments.model, arguments.engine)
    settings = parse_decoding(read_settings(model), arguments.settings)
    texts = pq.read_table(f"{folder}/sentences.parquet")["source"].to_pylist()
    engine = open_engine(model, arguments.engine)
    engine.translate(texts[:64], settings)
    start = time.perf_counter()
    translations = engine.translate(texts, settings)
    seconds = time.perf_counter() - start
    pq.write_table(pa.table({"translation": translations}), f"{folder}/direct.parquet")
    return {
        "sentences": len(texts),
        "engine": arguments.engine,
        "beam": settings.beam,
        "direct_seconds": seconds,
        "direct_per_second": len(texts) / seconds,
    }


def through_ray(arguments: argparse.Namespace, folder: str) -> dict[str, Any]:
    """`translate_dataset` in a cluster that has been started."""
    from heliograph import translate_dataset
    from heliograph.pipeline.cluster.start import start_ray

    begin = time.perf_counter()
    start_ray()
    start = time.perf_counter()
    done = translate_dataset(
        arguments.model,
        f"{folder}/sentences.parquet",
        f"{folder}/out",
        engine=arguments.engine,
        decoding=arguments.settings,
    )
    seconds = time.perf_counter() - start
    return {
        "ray_start_seconds": start - begin,
        "ray_seconds": seconds,
        "ray_per_second": done["rows"] / seconds,
        "ray_files": done["parts"],
        "ray_steady_per_second": steady(f"{folder}/out"),
    }


def steady(folder: str) -> float:
    """Rows per second from the first file that was written to the last."""
    paths = sorted(Path(folder).glob("*.parquet"), key=lambda path: path.stat().st_mtime_ns)
    rows = sum(pq.read_metadata(path).num_rows for path in paths[1:])
    return rows / (paths[-1].stat().st_mtime - paths[0].stat().st_mtime)


def differing(folder: str) -> int:
    """Sentences that the two translated otherwise."""
    one = pq.read_table(f"{folder}/direct.parquet")["translation"].to_pylist()
    other = pq.read_table(f"{folder}/out")["translation"].to_pylist()
    return sum(left != right for left, right in zip(one, other, strict=True))


if __name__ == "__main__":
    main()
