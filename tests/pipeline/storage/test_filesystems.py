"""Many looks at files far away."""

import threading

import pytest

from heliograph.pipeline.storage.filesystems import in_parallel
from tests.waiting import DEADLINE


def test_looks_are_taken_at_once_and_answered_in_order() -> None:
    """One after the other they would wait for one another for ever (issue 16, 3)."""
    eight = threading.Barrier(8)

    def look(number: int) -> int:
        eight.wait(DEADLINE)
        return number * number

    assert in_parallel(look, range(64)) == [number * number for number in range(64)]


def test_of_several_errors_the_first_one_is_raised() -> None:
    def look(number: int) -> int:
        if number in (3, 5):
            raise ValueError(number)
        return number

    with pytest.raises(ValueError, match="3"):
        in_parallel(look, range(100))
    assert in_parallel(look, range(3)) == [0, 1, 2]
    assert in_parallel(look, []) == []
