"""How many windows are made at once on a cluster of many CPUs, and how many are made in advance.

    python benchmarks/pacing.py                      # 16 CPUs; sentences of 10, 40 and 160 words

Ray is told of so many CPUs, and each window's task sleeps before it tokenizes, as if that took
longer: what is measured is how the tasks are scheduled, on any machine. One consumer takes all that
there is; a second run takes a step and then nothing more. At best a CPU makes a window in every
`--sleep` seconds.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

if __package__ in (None, ""):  # Run as a file: the repository's root is not on the path.
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from heliograph.jobs.command import mute_libraries, protect_local_ray

PAIRS_OF_A_WINDOW = 512
EPOCHS = 1_000_000
"""More than anybody takes."""


def main() -> None:
    arguments = parse_arguments()
    mute_libraries()
    protect_local_ray()
    import ray

    with tempfile.TemporaryDirectory() as folder:
        begun = Path(folder) / "begun"
        hook = slow_windows(str(begun), arguments.sleep)
        environment = {"worker_process_setup_hook": hook}
        ray.init("local", num_cpus=arguments.cpus, runtime_env=environment, log_to_driver=False)
        print(f"{'words':>5} {'windows/s':>9} {'at best':>7} {'made in advance':>15}", flush=True)
        for words in arguments.words:
            stream = Stream(Path(folder), words, begun)
            speed = stream.speed(arguments.seconds, 2 * arguments.cpus)
            ahead = stream.ahead(5 * arguments.sleep)
            best = arguments.cpus / arguments.sleep
            print(f"{words:>5} {speed:>9.2f} {best:>7.2f} {ahead:>15}", flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cpus", type=int, default=16, help="that Ray is told of")
    parser.add_argument("--words", type=int, nargs="+", default=[10, 40, 160], help="of a sentence")
    parser.add_argument("--sleep", type=float, default=3.0, help="seconds, in each window's task")
    parser.add_argument("--seconds", type=float, default=30.0, help="that all is taken, each time")
    return parser.parse_args()


def slow_windows(begun: str, seconds: float):  # type: ignore[no-untyped-def]  # sent to workers
    """What each of Ray's processes runs first: a window's portions come after a sleep, and that
    they were begun is noted by a byte."""

    def hook() -> None:
        from heliograph.pipeline.steps import stream

        portions = stream.portions

        def slow(*words, **named):  # type: ignore[no-untyped-def]
            with open(begun, "ab") as file:
                file.write(b".")
            time.sleep(seconds)
            yield from portions(*words, **named)

        stream.portions = slow

    return hook


class Stream:
    """The windows of a corpus of sentences of so many words."""

    def __init__(self, folder: Path, words: int, begun: Path) -> None:
        from heliograph.pipeline.request import recipe
        from heliograph.pipeline.steps.tokenizer import train_tokenizer
        from tests.pipeline.small_corpus import write_mixture

        sentence = " ".join(f"word{number % 97}" for number in range(words))
        pairs = [(f"{number} {sentence}", f"{sentence} {number}") for number in range(1024)]
        self._mixture = write_mixture(folder / f"corpus-{words}", pairs, PAIRS_OF_A_WINDOW)
        config = recipe.Tokenizer(vocabulary_size=400)
        self._tokenizer = train_tokenizer(self._mixture, config, str(folder / f"storage-{words}"))
        self._batches = recipe.Batches(
            tokens_per_micro_batch=4096,
            tokens_per_step=4096,
            piece_rows=PAIRS_OF_A_WINDOW,
            window_pieces=1,
        )
        self._begun = begun

    def speed(self, seconds: float, first: int) -> float:
        """Windows a second that a consumer gets who takes all, after so many of them: until then
        processes are started."""
        steps = self._steps()
        windows, started = 0, float("inf")
        while (now := time.monotonic()) < started + seconds:
            windows += next(steps).next_position.step == 0
            if windows == first and started == float("inf"):
                windows, started = 0, time.monotonic()
        steps.close()
        return windows / (now - started)

    def ahead(self, seconds: float) -> int:
        """Windows that were begun after so long, with one step of the first one taken."""
        self._begun.write_bytes(b"")
        steps = self._steps()
        next(steps)
        time.sleep(seconds)
        steps.close()
        return self._begun.stat().st_size

    def _steps(self):  # type: ignore[no-untyped-def]
        from heliograph.pipeline.request import recipe
        from heliograph.pipeline.steps.batches import iterate_steps
        from heliograph.pipeline.steps.stream import step_stream
        from heliograph.pipeline.steps.windows import Position

        stream = step_stream(
            self._mixture,
            self._tokenizer,
            self._batches,
            recipe.Augment(),
            seed=1,
            epochs=EPOCHS,
            world_size=1,
            start=Position(),
            max_steps=None,
        )
        (shard,) = stream.streaming_split(1, equal=True)
        return iterate_steps(shard, 0, 1, Position())


if __name__ == "__main__":
    main()
