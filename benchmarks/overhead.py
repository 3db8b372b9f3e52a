"""What Ray costs: the same training by `torchrun` and through Ray Train, on the same cores.

    python benchmarks/overhead.py                       # about sixteen minutes on two cores

All sides take the same step function over the same step list, on two workers of one thread each.

torchrun    a plain loop: batches that were made beforehand are read from a file and collated; no
            tracking, no telemetry, no checkpoints.
ray_train   the same plain loop in Ray Train's workers, Ray and Ray Train as they come: what their
            own processes take of the same cores.
heliograph  `pipeline.workers.train.train` as `heliograph train` runs it, on a Ray of its own: Ray
            Data makes the batches from `prepare`'s token ids, every step is tracked, progress
            shown, the node monitored. Nothing is validated or saved.

All are started, and then take turns: all processes of the others are stopped (SIGSTOP) while one
goes on for some seconds, so that whatever else the machine does hits all. What is compared
are the seconds of the same steps, those that no turn cut, after each side's warm-up. What a step's
own clock and Ray's metrics cost is measured apart, in one process, step by step in turn.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]
SIDES = ["torchrun", "ray_train", "heliograph"]
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
        if name == "torchrun":
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

    def seconds_by_step(self) -> dict[int, float]:
        """Of the steps that lie within one turn, by their number."""
        times = [float(each) for each in self.times.read_text().split()]
        return {
            number: end - begin
            for number, (begin, end) in enumerate(pairwise(times), start=2)
            if number > WARM_UP_STEPS
            and any(first <= begin and end <= last for first, last in self.turns)
        }

    def _send(self, signal_number: int) -> None:
        if not self.runs():
            return
        for process in [self._process, *self._process.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal_number)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", nargs="+", default=SIDES, choices=SIDES)
    parser.add_argument("--steps", type=int, default=500, help="of each side")
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
        for name in options.sides:
            sides.append(side := Side(name, folder))
            while side.steps() < WARM_UP_STEPS and side.runs():
                side.go_on(5.0)
            side.turns.clear()
        while all(side.runs() for side in sides):
            for side in sides:
                side.go_on(SECONDS_OF_A_TURN)
                print(f"{side.name:10} {side.steps():5} steps", file=sys.stderr, flush=True)
        for side in sides:
            side.go_on(1e6)
        watching = subprocess.run(
            [sys.executable, *of_folder, "watching", str(folder)],
            env=environment, check=True, capture_output=True, text=True,
        )  # fmt: skip
        result = summary({side.name: side.seconds_by_step() for side in sides})
    print(json.dumps(result | json.loads(watching.stdout.splitlines()[-1]), indent=2))


def summary(seconds: dict[str, dict[int, float]]) -> dict[str, Any]:
    """Of the steps that all sides took undisturbed: how many, and by side their rate, and the share
    that it is of the first side's; and that of their halves, which says how certain it is."""
    same = sorted(set.intersection(*(set(each) for each in seconds.values())))
    parts = {"all": same, "first_half": same[: len(same) // 2], "rest": same[len(same) // 2 :]}
    sums = {
        side: {part: sum(of_step[n] for n in numbers) for part, numbers in parts.items()}
        for side, of_step in seconds.items()
    }
    first = next(iter(sums.values()))
    return {
        "steps": len(same),
        "steps_per_second": {side: len(same) / each["all"] for side, each in sums.items()},
        "of_the_first": {
            side: {part: first[part] / each[part] for part in parts} for side, each in sums.items()
        },
    }


if __name__ == "__main__":
    main()
