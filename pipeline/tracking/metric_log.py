"""Metrics by step: training never waits for them, none is lost, none arrives twice.

What the tracking server does not take at once goes to a spool on storage, and from there to the
server when it is back: by this process, by the next one of the same job, or by `heliograph sync`.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from heliograph.pipeline.request.errors import one_line
from heliograph.pipeline.tracking.spool import Measurement, Segment, Spool

if TYPE_CHECKING:
    from heliograph.pipeline.tracking.delivery import Delivery

logger = logging.getLogger(__name__)

GATHER = 2.0
"""Seconds between two deliveries: each costs the training process some milliseconds."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 10.0
"""Seconds between two attempts to reach a server that is away."""
IN_MEMORY = 10_000
"""Metrics that may wait in memory while older ones are being delivered."""


class MetricLog:
    """The metrics of one writer of a run, delivered in the background and in order.

    What a run already holds is passed over: after a resume the steps since the checkpoint are
    computed a second time. Only `persist` and `close` take time, and nothing asks the server in the
    caller's thread.

    Args:
        spool: a path or URL of which this is the only writer. What an earlier one left there is
            delivered first.
    """

    def __init__(self, uri: str, run_id: str, spool: str) -> None:
        self._uri, self._run_id, self._location = uri, run_id, spool
        self._lock = threading.Lock()
        self._memory: list[Measurement] = []
        self._taken = 0  # how many measurements left the memory's beginning so far
        # Held while memory moves to the spool, so that the writer never overtakes what is older.
        self._order = threading.Lock()
        self._spool: Spool | None = None
        self._segments: list[str] = []
        self._delivery: Delivery | None = None
        self._is_away = False
        self._courier = Courier(self._deliver, self._not_delivered, "metric-log")
        self._courier.wake()  # for what an earlier process left

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take the values of one step; returns at once. Steps must not decrease."""
        now = int(time.time() * 1000)
        fresh = [Measurement(key, float(value), now, step) for key, value in values.items()]
        with self._lock:
            self._memory += fresh
        self._courier.wake()

    def persist(self) -> None:
        """Return when all that was logged so far is in the run or on disk.

        To be called before a checkpoint is published: the steps up to it are not computed again.

        Raises:
            OSError: the spool cannot be written.
        """
        with self._order:
            measurements, end = self._in_memory()
            if measurements:
                name = self._opened_spool().append(Segment(self._run_id, measurements))
                self._segments.append(name)
                self._leave_memory(end)

    def close(self, timeout: float = 60.0) -> bool:
        """Wait until all has arrived, at most so many seconds; whether it has.

        What has not is on disk then, for the next start of the job or `heliograph sync`.
        """
        self._persist_if_possible()
        if self._courier.close(timeout):
            return True
        self._persist_if_possible()
        logger.warning("metrics that the tracking server did not take are in %s", self._location)
        return False

    def _deliver(self) -> None:
        """Deliver all there is; in the courier's thread, as are the methods below."""
        if self._delivery is None:
            from heliograph.pipeline.tracking.delivery import (
                deliver_to,  # MLflow: a second that no other rank needs
            )

            self._delivery = deliver_to(self._uri)
        while True:
            with self._order:
                spool = self._opened_spool()
                name = self._segments[0] if self._segments else None
                measurements, end = self._in_memory()
            if name is not None:
                segment = spool.read(name)
                if segment is not None and self._is_taken(segment):
                    spool.remove(name)
                with self._order:
                    self._segments.remove(name)
                if len(measurements) > IN_MEMORY:
                    self.persist()
            elif measurements:
                self._delivery.send(Segment(self._run_id, measurements))
                self._leave_memory(end)
            else:
                break
        if self._is_away:
            self._is_away = False
            logger.warning("the tracking server is back and has all metrics")

    def _is_taken(self, segment: Segment) -> bool:
        """Not that of another run, which this server does not know: it must not be waited for."""
        assert self._delivery is not None
        try:
            self._delivery.send(segment)
        except Exception as error:
            if segment.run_id == self._run_id or self._delivery.may_pass(error):
                raise
            logger.warning(
                "metrics of run %s stay in %s: the tracking server does not take them (%s)",
                segment.run_id,
                self._location,
                one_line(error),
            )
            return False
        return True

    def _not_delivered(self, error: Exception) -> None:
        if not self._is_away:
            self._is_away = True
            logger.warning(
                "the tracking server does not take metrics (%s); they are kept in %s until it does",
                one_line(error),
                self._location,
            )
        self._persist_if_possible()

    def _persist_if_possible(self) -> None:
        try:
            self.persist()
        except OSError as error:
            logger.error("metrics cannot be kept in %s: %s", self._location, one_line(error))

    def _opened_spool(self) -> Spool:
        if self._spool is None:
            spool = Spool(self._location)
            self._segments = spool.names()
            self._spool = spool
        return self._spool

    def _in_memory(self) -> tuple[list[Measurement], int]:
        """What waits in memory, and the number of measurements up to its end since the start."""
        with self._lock:
            return list(self._memory), self._taken + len(self._memory)

    def _leave_memory(self, end: int) -> None:
        """Drop what `_in_memory` gave, or what is still there of it."""
        with self._lock:
            if end > self._taken:
                del self._memory[: end - self._taken]
                self._taken = end


class Courier:
    """A thread that delivers what there is whenever it is woken, and does not give up.

    Args:
        deliver: delivers everything, or raises.
        not_delivered: is told why it was not, before each pause.
    """

    def __init__(
        self, deliver: Callable[[], None], not_delivered: Callable[[Exception], None], name: str
    ) -> None:
        self._deliver, self._not_delivered = deliver, not_delivered
        self._woken, self._closing = threading.Event(), threading.Event()
        self._given_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def wake(self) -> None:
        self._woken.set()

    def close(self, timeout: float) -> bool:
        """Deliver what there is and end, within `timeout` seconds; whether all was delivered."""
        self._closing.set()
        self._woken.set()
        self._thread.join(timeout)
        delivered = not self._thread.is_alive()
        self._given_up.set()
        return delivered

    def _run(self) -> None:
        is_last = False
        while not is_last:
            self._woken.wait()
            self._closing.wait(GATHER)
            self._woken.clear()
            is_last = self._closing.is_set()
            pause = FIRST_PAUSE
            while not self._given_up.is_set():
                try:
                    self._deliver()
                    break
                except Exception as error:  # whatever the transport raises, it must arrive
                    self._not_delivered(error)
                # Whoever closes waits for this: then each second counts.
                if self._closing.is_set():
                    self._given_up.wait(FIRST_PAUSE)
                else:
                    self._closing.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
