"""How much memory each process of a tree has needed at most."""

import threading
from collections import defaultdict
from types import TracebackType

import psutil

SECONDS = 0.5


class MemoryWatch:
    """Samples a process and all that descend from it, while the `with` block runs."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._peaks: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "MemoryWatch":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def peaks(self) -> dict[str, tuple[int, int]]:
        """Name → megabytes: resident, and of these its own alone (not libraries and not Ray's
        object store, which are mapped into many). Of processes with one name the largest."""
        megabytes = {name: (peak[0] >> 20, peak[1] >> 20) for name, peak in self._peaks.items()}
        return dict(sorted(megabytes.items(), key=lambda item: -item[1][0]))

    def _run(self) -> None:
        while not self._stop.wait(SECONDS):
            for process in [self._root, *self._children()]:
                try:
                    name, memory = self._name(process), process.memory_full_info()
                except psutil.Error:
                    continue  # it ended meanwhile
                resident, own = self._peaks[name]
                self._peaks[name] = (max(resident, memory.rss), max(own, memory.uss))

    def _children(self) -> list[psutil.Process]:
        try:
            return self._root.children(recursive=True)
        except psutil.Error:
            return []

    def _name(self, process: psutil.Process) -> str:
        """Ray's workers name themselves by what they do: ray::Actor.method becomes Actor."""
        if process == self._root:
            return "driver"
        command = process.cmdline()
        if command and command[0].startswith("ray::"):
            return command[0].removeprefix("ray::").partition(".")[0].partition("(")[0]
        return process.name()
