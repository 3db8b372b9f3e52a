"""Saving beside training, which pauses only while what is to be saved is copied."""

import logging
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from heliograph.pipeline.checkpoints.checkpoint_store import CheckpointStore

logger = logging.getLogger(__name__)

Write = Callable[[Path], None]


class BackgroundSaver:
    """Writes checkpoints in a thread, one at a time, and drops those that are no longer kept.

    A context manager: leaving it waits for the last one.

    Args:
        store: where to; no one else saves to it.
        keep_newest: how many of the newest checkpoints stay.
        keep_best: how many of the best by validation stay besides.
        damaged: steps of checkpoints that were passed over when training began here. They do not
            count as kept, and are deleted once a new one is saved.
        check: raises if this process may not write any more; called before it does.
        is_scheduled: whether the checkpoint of a step counts among the newest. One that was taken
            for another reason displaces none that the average needs.
    """

    def __init__(
        self,
        store: CheckpointStore,
        keep_newest: int,
        keep_best: int,
        damaged: Collection[int] = (),
        check: Callable[[], None] = lambda: None,
        is_scheduled: Callable[[int], bool] = lambda _: True,
    ) -> None:
        self._check, self._is_scheduled = check, is_scheduled
        self._store, self._keep_newest, self._keep_best = store, keep_newest, keep_best
        self._damaged = set(damaged)
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None

    def save(self, step: int, take: Callable[[], Write]) -> float:
        """Copy what is to be saved, and begin to write it.

        Args:
            step: of the checkpoint.
            take: makes the copy, after the checkpoint before is written, so it may use the same
                memory again; what it returns writes the copy into a folder, in another thread.

        Returns:
            The pause in seconds: the wait for the checkpoint before, and the copying.

        Raises:
            OSError: of the checkpoint before, which was not saved; this one is not begun.
        """
        started = time.perf_counter()
        self._wait()
        self._pending = self._thread.submit(self._publish, step, take())
        return time.perf_counter() - started

    def finish(self) -> None:
        """Wait for the checkpoint that is being written; raises why it was not saved."""
        try:
            self._wait()
        finally:
            self._thread.shutdown()

    def __enter__(self) -> "BackgroundSaver":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.finish()
        except Exception:
            if kind is None:
                raise
            # What ended training is the error to report.
            logger.exception("nor was the last checkpoint saved")

    def _wait(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _publish(self, step: int, write: Write) -> None:
        self._check()
        self._store.save(step, write)
        self._check()
        self._damaged.discard(step)
        sound = [each for each in self._store.steps() if each not in self._damaged]
        scheduled = [each for each in sound if self._is_scheduled(each)]
        also = {*self._store.best(self._keep_best), *scheduled[-self._keep_newest :]}
        self._store.prune(self._keep_newest, also, self._damaged)
        self._damaged.clear()
