"""What Ray costs: the same training by `torchrun` and through Ray Train, on the same cores.

    python benchmarks/overhead.py                       # about five minutes on two cores

Both sides take the same step function over the same step list, on two workers of one thread each,
and turn about, so that whatever else the machine does hits both.

torchrun   a plain loop: batches that were made beforehand are read from a file and collated; no
           tracking, no telemetry, no checkpoints. No process of Ray runs meanwhile.
Ray        `pipeline.workers.train.train` as `heliograph train` runs it, on a Ray of its own: Ray
           Data makes the batches from `prepare`'s token ids, every step is tracked, progress shown,
           the node monitored. Ray's own processes are on the same cores. Nothing is validated or
           saved.

A turn is timed from the end of its warm-up steps to the end of its last step, by rank 0. What a
step's own clock and Ray's metrics cost is measured apart, in one process, step by step in turn.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SIDES = ("torchrun", "ray")
WARM_UP_STEPS = 10


def turn(side: str, folder: Path) -> list[float]:
    """Rank 0's clock at the end of each step of one side, in a process of its own."""
    words = ["-m", "benchmarks.sides", side, str(folder)]
    if side == "torchrun":
        words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *words]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_"))}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{side}: {done.stderr[-3000:]}")
    return [float(time) for time in (folder / "times").read_text().split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=4, help="of each side")
    parser.add_argument("--steps", type=int, default=70, help="of each turn, warm-up included")
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        subprocess.run(
            [sys.executable, "-m", "benchmarks.sides", "prepare", str(folder), str(options.steps)],
            env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True,
        )  # fmt: skip
        for number in range(options.turns):
            for side in SIDES if number % 2 == 0 else SIDES[::-1]:
                times = turn(side, folder)
                assert len(times) == options.steps, (side, len(times))
                seconds[side].append(times[-1] - times[WARM_UP_STEPS])
                print(f"{side:9} {seconds[side][-1]:7.2f} s", file=sys.stderr, flush=True)
        watching = subprocess.run(
            [sys.executable, "-m", "benchmarks.sides", "watching", str(folder)],
            env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, capture_output=True, text=True,
        )  # fmt: skip
    result = summary(seconds, options.steps - 1 - WARM_UP_STEPS)
    print(json.dumps(result | json.loads(watching.stdout.splitlines()[-1]), indent=2))


def summary(seconds: dict[str, list[float]], steps: int) -> dict[str, Any]:
    """Steps per second by side; the ratio of the sums, and of each turn with its neighbour."""
    pairs = zip(seconds["torchrun"], seconds["ray"], strict=True)
    return {
        "steps_per_second": {side: steps * len(s) / sum(s) for side, s in seconds.items()},
        "ray_of_torchrun": sum(seconds["torchrun"]) / sum(seconds["ray"]),
        "by_turn": [round(torchrun / ray, 4) for torchrun, ray in pairs],
        "median_by_turn": statistics.median(
            t / r for t, r in zip(seconds["torchrun"], seconds["ray"], strict=True)
        ),
    }


if __name__ == "__main__":
    main()
