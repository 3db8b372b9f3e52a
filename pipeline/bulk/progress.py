"""The line that says how far a data set's translation is."""

import time
from dataclasses import dataclass, replace

from heliograph.pipeline.runs.progress import ProgressLine, Stage, joined


@dataclass(frozen=True)
class Rows:
    """Where the translation of a data set stands.

    Attributes:
        total: rows of the whole data set; so many of them were there when this process began.
        seconds: since then.
    """

    total: int
    before: int
    translated: int = 0
    failed: int = 0
    seconds: float = 0.0

    @property
    def done(self) -> float:
        return (self.before + self.translated) / max(self.total, 1)

    def line(self, seconds_left: float | None) -> str:
        rate = self.translated / self.seconds if self.seconds else 0.0
        parts = [
            f"{self.done:4.0%}",
            f"{self.before + self.translated:,} of {self.total:,} rows",
            f"{self.failed:,} failed",
            f"{rate:,.0f} rows/s",
        ]
        return joined(parts, seconds_left)


class RowProgress:
    """What the driver counts and the line shows."""

    def __init__(self, total: int, before: int) -> None:
        self._rows, self._start = Rows(total, before), time.monotonic()

    def add(self, translated: int, failed: int) -> None:
        """A part was written."""
        self._rows = replace(
            self._rows,
            translated=self._rows.translated + translated,
            failed=self._rows.failed + failed,
            seconds=time.monotonic() - self._start,
        )

    def read(self) -> Rows:
        return self._rows


class RowLine(ProgressLine):
    """`ProgressLine` of a `RowProgress`."""

    def __init__(self, progress: RowProgress) -> None:
        super().__init__(None)
        self._progress = progress

    def _read(self) -> tuple[Stage | None, list[str]]:
        return self._progress.read(), []
