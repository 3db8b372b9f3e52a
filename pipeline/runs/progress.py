"""One line that says where training is, how fast, and how long it will take.

Rank 0 posts to a small actor without waiting; a thread of the driver draws what it finds there.
Ray's own way, workers' output copied to the driver with a prefix a line, drowns what matters.
"""

import asyncio
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any, Protocol

import ray
from ray.exceptions import ActorUnavailableError, RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


class Stage(Protocol):
    """Where any long work stands."""

    @property
    def done(self) -> float:
        """Share of the whole work, 0 to 1."""

    def line(self, seconds_left: float | None) -> str: ...


@dataclass(frozen=True)
class Progress:
    """Where training stands.

    Args:
        done: share of the whole job that is done, 0 to 1.
        loss: nats per target token, of the last logged step.
        bleu: of the last validation.
        tokens_per_second: target tokens, all workers together.
    """

    step: int
    done: float
    loss: float
    bleu: float | None
    tokens_per_second: float

    def line(self, seconds_left: float | None) -> str:
        parts = [
            f"{self.done:4.0%}",
            f"step {self.step}",
            f"loss {self.loss:.3f}",
            f"BLEU {self.bleu:.1f}" if self.bleu is not None else "BLEU -",
            f"{self.tokens_per_second:,.0f} tokens/s",
        ]
        return joined(parts, seconds_left)


def joined(parts: list[str], seconds_left: float | None) -> str:
    """The line that says this, and how long it will take where that is known."""
    if seconds_left is not None:
        minutes, seconds = divmod(int(seconds_left), 60)
        parts = [*parts, f"{minutes}:{seconds:02d} left"]
    return " · ".join(parts)


class ProgressBoard:
    """Where driver and workers leave each other word; an actor, see `open_board`.

    It holds the newest progress, messages until they were read, whether the user wants to stop,
    how far the workers are, and why training cannot go on.
    """

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._messages: list[str] = []
        self._stop_wanted, self._phase = asyncio.Event(), "starting"
        self._failure: str | None = None

    def post(self, progress: Progress) -> None:
        self._progress = progress

    def say(self, message: str) -> None:
        self._messages.append(message)

    def want_stop(self) -> None:
        self._stop_wanted.set()

    async def stop_wanted(self) -> bool:
        """True; the answer comes when the user wants to stop, so that nobody asks twice."""
        return await self._stop_wanted.wait()

    def enter(self, phase: str) -> None:
        """The workers are "starting", "training", "stopping" (they agreed to, and take a last
        checkpoint), or "stopped" (it is taken)."""
        self._phase = phase

    def phase(self) -> str:
        return self._phase

    def fail(self, why: str) -> None:
        """Of the first reason the others are consequences."""
        self._failure = self._failure or why

    def failure(self) -> str | None:
        return self._failure

    def read(self) -> tuple[Progress | None, list[str]]:
        messages, self._messages = self._messages, []
        return self._progress, messages


def open_board() -> Any:
    """A board that every worker can post to. It holds no CPU that training could use, and is lost
    with the driver's node only."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(ProgressBoard).remote()


class StopWish:
    """What a worker knows of the user's wish to stop; it asks once, and never waits."""

    def __init__(self, board: Any) -> None:
        self._board = board
        self._answer = board.stop_wanted.remote().future()

    def is_known(self) -> bool:
        if not self._answer.done():
            return False
        try:
            return bool(self._answer.result())
        except ActorUnavailableError:  # the network was away for a while
            self._answer = self._board.stop_wanted.remote().future()
        except RayActorError:  # a lost board costs the wish, never the training
            pass
        return False


class ProgressLine:
    """Draws the board on standard error while its `with` block runs.

    On a terminal one line is rewritten twice a second; elsewhere one is printed every 20 seconds,
    and messages within two: who looks takes from training.
    """

    def __init__(self, board: Any) -> None:
        self._board = board
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._draw, name="progress-line", daemon=True)
        self._terminal = sys.stderr.isatty()
        self._first: tuple[float, float] | None = None

    def __enter__(self) -> "ProgressLine":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(timeout=5)

    def _draw(self) -> None:
        printed, ended = 0.0, False
        while not ended:
            ended = self._ended.wait(0.5 if self._terminal else 2.0)
            try:
                progress, messages = self._read()
            except Exception:  # a lost board costs the line, never the training
                continue
            for message in messages:
                print(f"\r\033[K{message}" if self._terminal else message, file=sys.stderr)
            if progress is None:
                continue
            line = progress.line(self._seconds_left(progress))
            if self._terminal:
                print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
            elif time.monotonic() - printed > 20:
                print(line, file=sys.stderr, flush=True)
                printed = time.monotonic()
        if self._terminal:
            print(file=sys.stderr)

    def _read(self) -> tuple[Stage | None, list[str]]:
        found: tuple[Progress | None, list[str]] = ray.get(self._board.read.remote(), timeout=10)
        return found

    def _seconds_left(self, progress: Stage) -> float | None:
        """From the pace since this process first saw the job, so that a resume does not mislead."""
        now = time.monotonic()
        if self._first is None:
            self._first = (now, progress.done)
        since, done = now - self._first[0], progress.done - self._first[1]
        return since * (1 - progress.done) / done if done > 0 and since > 5 else None
