"""What faults cost a run: a killed worker, the tracking server gone, a checkpoint, Ctrl-C.

    python benchmarks/recovery.py                                  # about nine minutes on two cores
    python benchmarks/recovery.py recipes/multi30k.yaml data.train=… train.checkpoint_steps=20

Runs `heliograph train` in this process against an `mlflow server` of its own. One after another: a
minute undisturbed, a minute with the server killed, and that again, since a machine's speed drifts;
another minute undisturbed, a worker killed, Ctrl-C. Each step's time is written down by the workers
themselves, so that it depends on neither.
"""

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # Run as a file: the repository's root is not on the path.
    ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    sys.path.insert(0, ROOT)
    # As are the workers' processes, which need this module.
    os.environ["PYTHONPATH"] = ROOT
    from heliograph.jobs.command import mute_libraries, protect_local_ray

    mute_libraries()
    protect_local_ray()  # Ray reads this when it is imported

import psutil
import ray
from mlflow.tracking import MlflowClient

import heliograph.pipeline.training.loop
import heliograph.pipeline.workers.train
from heliograph.pipeline.checkpoints.checkpoint_store import CheckpointStore
from heliograph.pipeline.request.recipe_file import load_recipe
from heliograph.pipeline.steps.batches import Step
from heliograph.pipeline.tracking.sync import sync_job
from heliograph.pipeline.training.plan import TrainingPlan
from heliograph.pipeline.training.worker import Worker
from tests.tracking_server import MlflowServer

ENDLESS = ["train.epochs=10000", "validation.every_steps=1000000", "track.every_steps=1"]
WARM_UP_STEPS = 20
ABSENCES = 2
UNDISTURBED, AWAY = "undisturbed", "server away"
SECONDS_TO_RESTART_SERVER = 40.0
"""Its start takes half a core for 10 to 30 seconds; training during that is not compared."""


class TimedWorker(Worker):
    """Rank 0 writes down when it has taken each step."""

    def take(self, step: Step, wait: float) -> None:
        super().take(step, wait)
        if self.rank == 0:
            with Path(self.plan.folder, "times").open("a", encoding="utf-8") as file:
                print(self.state.step, step.target_tokens, time.time(), file=file)


def timed_loop(plan: TrainingPlan, board: Any) -> str:
    """The training loop with timed workers."""
    heliograph.pipeline.training.loop.Worker = TimedWorker  # type: ignore[misc]  # this process does nothing else
    return heliograph.pipeline.training.loop.training_loop(plan, board)


class Saboteur(threading.Thread):
    """Does the harm, and remembers when."""

    def __init__(self, folder: Path, server: MlflowServer, seconds: float) -> None:
        super().__init__(name="saboteur", daemon=True)
        self._folder, self._server, self._seconds = folder, server, seconds
        self.phases: list[tuple[str, float, float]] = []
        self.killed = self.interrupted = 0.0

    def times(self) -> list[tuple[int, int, float]]:
        """Step, its target tokens and when it had been taken; some of them twice."""
        text = "".join(path.read_text() for path in self._folder.glob("storage/jobs/*/times"))
        lines = [line.split() for line in text.splitlines()]
        return [(int(step), int(tokens), float(at)) for step, tokens, at in lines]

    def run(self) -> None:
        self._wait_for_steps(WARM_UP_STEPS)
        for _ in range(ABSENCES):
            self._phase(UNDISTURBED)
            self._server.kill()
            self._phase(AWAY)
            self._server.start()
            time.sleep(SECONDS_TO_RESTART_SERVER)
        self._phase(UNDISTURBED)
        (worker, *_) = workers()
        before, self.killed = len(self.times()), time.time()
        worker.kill()
        self._wait_for_steps(before + WARM_UP_STEPS)
        self.interrupted = time.time()
        os.kill(os.getpid(), signal.SIGINT)

    def _phase(self, name: str) -> None:
        started = time.time()
        time.sleep(self._seconds)
        self.phases.append((name, started, time.time()))

    def _wait_for_steps(self, count: int) -> None:
        while len(self.times()) < count:
            time.sleep(0.05)


def workers() -> Iterator[psutil.Process]:
    for process in psutil.Process().children(recursive=True):
        if "RayTrainWorker" in " ".join(process.cmdline()):
            yield process


def report(saboteur: Saboteur, client: MlflowClient, job: Path, ended: float) -> dict[str, Any]:
    """The figures, of the steps' times and of what is in the run."""
    times = saboteur.times()
    rates: dict[str, list[float]] = {UNDISTURBED: [], AWAY: []}
    for name, start, end in saboteur.phases:
        inside = [(tokens, at) for _, tokens, at in times if start <= at < end]
        tokens = sum(tokens for tokens, _ in inside[1:])
        rates[name].append(tokens / (inside[-1][1] - inside[0][1]))
    (experiment,) = (e for e in client.search_experiments() if e.name != "Default")
    (run,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(run.info.run_id, "train/loss")
    steps = [metric.step for metric in history]
    pauses = client.get_metric_history(run.info.run_id, "train/checkpoint_pause")
    taken = {step: at for step, _, at in reversed(times)}  # the first time of each
    between = [
        taken[after.step] - taken[before.step]
        for before, after in pairwise(pauses)
        if not taken[before.step] < saboteur.killed < taken[after.step]
    ]
    # What comes after the newest checkpoint the next start computes again, with its metrics.
    kept = CheckpointStore(f"{job}/checkpoints").newest().step or 0
    return {
        "target_tokens_per_second": rates,
        "server_away_of_undisturbed": statistics.mean(rates[AWAY])
        / statistics.mean(rates[UNDISTURBED]),
        "steps_kept": kept,
        "steps_missing": sorted(set(range(1, kept + 1)) - set(steps)),
        "each_once_and_in_order": steps == list(range(1, len(steps) + 1)),
        "seconds_from_kill_to_next_step": min(
            at for _, _, at in times if at > saboteur.killed + 1.0
        )
        - saboteur.killed,
        "checkpoints": len(pauses),
        "checkpoint_pause_seconds": statistics.mean(pause.value for pause in pauses),
        "seconds_between_checkpoints": statistics.mean(between),
        "checkpoint_pause_share": sum(pause.value for pause in pauses[1:]) / sum(between),
        "seconds_from_interrupt_to_end": ended - saboteur.interrupted,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", nargs="?", default="recipes/demo.yaml")
    parser.add_argument("overrides", nargs="*", help="key.path=value")
    parser.add_argument("--seconds", type=float, default=60.0, help="that each phase lasts")
    arguments = parser.parse_args()
    # What a script starts in the background ignores it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        overrides = [*ENDLESS, *arguments.overrides, f"storage={folder}/storage"]
        recipe = load_recipe(arguments.recipe, overrides)
        server = MlflowServer(folder)
        server.start()
        try:
            os.environ["MLFLOW_TRACKING_URI"] = server.url
            from benchmarks import recovery  # by the name that the workers know it by

            heliograph.pipeline.workers.train.training_loop = recovery.timed_loop
            saboteur = Saboteur(folder, server, arguments.seconds)
            saboteur.start()
            try:
                heliograph.train(recipe)
            except KeyboardInterrupt:
                ray.shutdown()
            ended = time.time()
            (job,) = folder.glob("storage/jobs/*")
            waiting = sync_job(server.url, str(job))  # as `heliograph sync` does it
            print(f"{waiting.metrics} metrics had waited on storage", file=sys.stderr)
            print(json.dumps(report(saboteur, MlflowClient(server.url), job, ended), indent=2))
        finally:
            server.kill()


if __name__ == "__main__":
    main()
