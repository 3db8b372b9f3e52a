"""What Ray costs: the same training by `torchrun` and through Ray Train, on the same cores.

    python benchmarks/overhead.py                       # a quarter of an hour on two cores

All sides take the same step function over the same step list, on two workers of one thread each.

torchrun_bare   a plain loop: batches made beforehand are read from a file and collated; no
                tracking, no telemetry, no checkpoints.
ray_train_bare  the same loop in Ray Train's workers, Ray and Ray Train as they come.
torchrun        the plain loop doing what a training does: a process beside each rank makes its
                batches from `prepare`'s token ids meanwhile, and every step is tracked.
heliograph      `pipeline.workers.train.train` as `heliograph train` runs it, on a Ray of its own:
                Ray Data makes the batches from the same token ids, every step is tracked, progress
                shown, the node monitored. Nothing is validated or saved.

All are started, and then take turns: all processes of the others are stopped (SIGSTOP) while one
goes on for some seconds, so that whatever else the machine does hits all. Compared is the pace of
turns that follow each other, after each side's warm-up. What a step's own clock and Ray's metrics
cost is measured apart, in one process, step by step in turn.
"""

import argparse
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]
COMPARED = [("torchrun_bare", "ray_train_bare"), ("torchrun", "heliograph")]
SIDES = [side for pair in COMPARED for side in pair]
WARM_UP_STEPS = 30
SECONDS_OF_A_TURN = 5.0
SETTLED = 0.5
"""Seconds from the beginning of a turn: what was stopped has come back to its pace."""


class Side:
    """One of them, in processes of its own; `times` has rank 0's clock at each step's end."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.times = name, folder / f"{name}.times"
        self.turns: list[tuple[float, float]] = []
        words = ["-m", "benchmarks.sides", name, str(folder)]
        if name.startswith("torchrun"):
            words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *words]
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_"))}
        self._log = folder / f"{name}.log"
        with self._log.open("wb") as log:
            self._process = psutil.Popen(
                [sys.executable, *words],
                cwd=folder,
                env=inherited | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
                stdout=log,
                stderr=log,
            )

    def steps(self) -> int:
        """How many it has taken; raises SystemExit where it failed."""
        if self._process.poll():
            raise SystemExit(f"{self.name}: {self._log.read_text()[-3000:]}")
        return len(self.times.read_text().splitlines()) if self.times.exists() else 0

    def runs(self) -> bool:
        return self._process.poll() is None

    def go_on(self, seconds: float) -> None:
        """For so long, or to its end; then it is stopped."""
        began = time.time()
        self._send(signal.SIGCONT)
        with suppress(psutil.TimeoutExpired):
            self._process.wait(seconds)
        self.turns.append((began + SETTLED, time.time()))
        self._send(signal.SIGSTOP)

    def paces(self) -> list[float]:
        """Steps a second in each turn."""
        times = [float(each) for each in self.times.read_text().split()]
        paces = []
        for first, last in self.turns:
            within = [each for each in times if first <= each <= last]
            steps = len(within) - 1
            paces.append(steps / (within[-1] - within[0]) if steps > 1 else math.nan)
        return paces

    def _send(self, signal_number: int) -> None:
        if not self.runs():
            return
        for process in [self._process, *self._process.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal_number)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=330, help="of each side")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        of_folder = ["-m", "benchmarks.sides"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        subprocess.run(
            [sys.executable, *of_folder, "prepare", str(folder), str(options.steps)],
            env=environment, check=True,
        )  # fmt: skip
        sides = []
        for name in SIDES:
            sides.append(side := Side(name, folder))
            while side.steps() < WARM_UP_STEPS and side.runs():
                side.go_on(5.0)
            side.turns.clear()
        while all(side.runs() for side in sides):
            for side in sides:
                side.go_on(SECONDS_OF_A_TURN)
                print(f"{side.name:14} {side.steps():5} steps", file=sys.stderr, flush=True)
        for side in sides:
            side.go_on(1e6)
        watching = subprocess.run(
            [sys.executable, *of_folder, "watching", str(folder)],
            env=environment, check=True, capture_output=True, text=True,
        )  # fmt: skip
        result = summary({side.name: side.paces() for side in sides})
    print(json.dumps(result | json.loads(watching.stdout.splitlines()[-1]), indent=2))


def summary(paces: dict[str, list[float]]) -> dict[str, Any]:
    """Steps a second by side; and the ratios of paces in turns that follow each other: their mean,
    and its standard error."""
    result: dict[str, Any] = {
        "steps_per_second": {
            side: statistics.mean(filter(math.isfinite, each)) for side, each in paces.items()
        }
    }
    for reference, other in COMPARED:
        pairs = zip(paces[reference], paces[other], strict=False)
        ratios = [ratio for a, b in pairs if math.isfinite(ratio := b / a)]
        result[f"{other}_of_{reference}"] = {
            "mean": statistics.mean(ratios),
            "standard_error": statistics.stdev(ratios) / math.sqrt(len(ratios)),
            "turns": len(ratios),
        }
    return result


if __name__ == "__main__":
    main()
