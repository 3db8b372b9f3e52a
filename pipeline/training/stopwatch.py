"""Where a rank's time goes: phases that follow each other, on a CPU or a GPU."""

import time

import torch

PHASES = ("data", "forward", "backward", "sync", "update", "validation", "checkpoint")
"""data: waiting for the next batch. sync: waiting for gradients of other ranks, as far as it is not
hidden behind the rest of backward. update: clipping and the optimizer. checkpoint: its pause."""


class Stopwatch:
    """Seconds by phase since they were last read.

    A GPU computes behind the program's back, so there a moment is an event in its queue: it costs
    microseconds and is not waited for.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._moments: list[tuple[str | None, float | torch.cuda.Event]] = []

    def start(self, phase: str | None) -> None:
        """What is done from now on belongs to `phase`, or with None to no phase."""
        moment: float | torch.cuda.Event
        if self._on_gpu:
            moment = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            moment.record()
        else:
            moment = time.perf_counter()
        self._moments.append((phase, moment))

    def stop(self) -> None:
        self.start(None)

    def add(self, phase: str, seconds: float) -> None:
        """For what was measured elsewhere."""
        self._seconds[phase] += seconds

    def read(self) -> dict[str, float]:
        """Seconds by phase since the last reading. Not between `start` and `stop`."""
        for (phase, begin), (_, end) in zip(self._moments, self._moments[1:], strict=False):
            if phase is not None:
                self._seconds[phase] += _between(begin, end)
        seconds, self._seconds = self._seconds, dict.fromkeys(PHASES, 0.0)
        self._moments.clear()
        return seconds


def _between(begin: "float | torch.cuda.Event", end: "float | torch.cuda.Event") -> float:
    if isinstance(begin, torch.cuda.Event):
        assert isinstance(end, torch.cuda.Event)
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1000
    assert isinstance(end, float)
    return end - begin
