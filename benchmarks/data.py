"""The data plane alone: its speed beside raw `tokenizers`, its pauses, and its memory.

    python benchmarks/data.py                                  # 100,000 generated pairs
    python benchmarks/data.py --growth 1 10 100                # and memory as the corpus grows
    python benchmarks/data.py --data train.parquet --source en --target de

For each size, in a process tree of its own: a corpus of about 100 bytes a pair is generated,
prepared and streamed to one consumer, which collates every batch and does nothing with it. In the
same run, before and after that, `tokenizers` encodes texts of the same corpus with nothing around
it, on the same cores. Everything counts as the plane's time, from asking for the stream to its last
batch. All processes are watched for their memory twice a second.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # Run as a file: the repository's root is not on the path.
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from benchmarks.generated import write_pairs
from benchmarks.memory import MemoryWatch
from heliograph.jobs.command import mute_libraries, protect_local_ray
from heliograph.pipeline.request.recipe_file import parse_recipe

LABELS = {
    "pairs": "pairs",
    "prepare_seconds": "corpus and tokenizer prepared, s",
    "raw_pairs_per_second": "tokenizers alone, pairs/s",
    "pairs_per_second": "the plane, pairs/s",
    "tokens_per_second": "the plane, tokens/s",
    "share_of_raw": "the plane ÷ tokenizers alone",
    "prepared_pairs_per_second": "the plane with prepared tokens, pairs/s",
    "padding": "padding, share of positions",
    "first_batch_seconds": "first batch of each epoch, s",
    "longest_wait_seconds": "longest wait for any other, s",
    "resume_at_1_percent_seconds": "first batch when resumed at 1 %, s",
    "resume_at_90_percent_seconds": "first batch when resumed at 90 %, s",
}


def main() -> None:
    arguments = parse_arguments()
    if arguments.measure:
        print(json.dumps(measure(arguments)))
        return
    results = []
    for growth in arguments.growth:
        with tempfile.TemporaryDirectory() as folder:
            if not arguments.data:
                write_pairs(Path(folder) / "pairs", arguments.pairs * growth)
            results.append(measure_apart(folder))
        report(results[-1])
    if arguments.json:
        print(json.dumps(results))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=100_000, help="of the smallest corpus")
    parser.add_argument("--growth", type=int, nargs="+", default=[1], help="times as many")
    parser.add_argument("--data", help="a corpus to use instead of a generated one")
    parser.add_argument("--source", default="source", help="column of --data")
    parser.add_argument("--target", default="target", help="column of --data")
    parser.add_argument("--tokens-per-micro-batch", type=int, default=4096)
    parser.add_argument("--json", action="store_true", help="end with all figures as JSON")
    parser.add_argument("--measure", metavar="FOLDER", help=argparse.SUPPRESS)
    return parser.parse_args()


def measure_apart(folder: str) -> dict[str, Any]:
    """`measure` by this very command in a process of its own, its memory watched from here."""
    command = [sys.executable, os.path.abspath(__file__), *sys.argv[1:], "--measure", folder]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with MemoryWatch(process.pid) as watch:
        output, _ = process.communicate()
    if process.returncode:
        sys.exit(process.returncode)
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result | {"peak_memory_mb": watch.peaks()}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    mute_libraries()
    protect_local_ray()
    from benchmarks.plane import measure
    from heliograph.pipeline.cluster.start import start_ray

    folder, tokens = arguments.measure, arguments.tokens_per_micro_batch
    recipe = parse_recipe(
        {
            "name": "benchmark",
            "storage": f"{folder}/storage",
            "data": {
                "train": arguments.data or f"{folder}/pairs/*.parquet",
                "validation": "embedded:validation",
                "source": arguments.source,
                "target": arguments.target,
            },
            "batches": {"tokens_per_micro_batch": tokens, "tokens_per_step": 2 * tokens},
            "train": {"epochs": 1},
        }
    )
    start_ray()
    return measure(recipe)


def report(result: dict[str, Any]) -> None:
    for key, label in LABELS.items():
        if key in result:
            print(f"{label:<42} {_readable(result[key])}")
    print("peak memory in MB, by process: resident (its own alone)")
    for name, (resident, own) in result["peak_memory_mb"].items():
        print(f"  {name:<40} {resident:>5} ({own})")
    print(flush=True)


def _readable(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_readable(each) for each in value)
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


if __name__ == "__main__":
    main()
