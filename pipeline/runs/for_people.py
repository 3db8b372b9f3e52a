"""Pictures, tables and pages of a run: none of them is worth a job."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from heliograph.pipeline.request.errors import one_line
from heliograph.pipeline.tracking.server import is_away


@contextmanager
def for_people(what: str, warn: Callable[[str], None]) -> Iterator[None]:
    """Where the block fails, `warn` is told that `what` is missing, and why (issue 15, point 1).

    Only a server that is away is still an error: whoever waits for it makes all of it then.
    """
    try:
        yield
    except Exception as error:
        if is_away(error):
            raise
        warn(f"{what} cannot be made: {one_line(error)}")
