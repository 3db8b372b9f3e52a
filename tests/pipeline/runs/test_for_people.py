"""A picture that cannot be drawn is told, and costs nothing else."""

import pytest

from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.runs.for_people import for_people


@pytest.mark.parametrize("error", [ValueError("mathematics"), RequestError("refused")])
def test_what_fails_is_told_and_the_job_goes_on(error: Exception) -> None:
    told: list[str] = []
    with for_people("the picture", told.append):
        raise error
    assert told == [f"the picture cannot be made: {error}"]


def test_a_server_that_is_away_is_waited_for_by_others() -> None:
    told: list[str] = []
    with pytest.raises(ConnectionError), for_people("the picture", told.append):
        raise ConnectionError("away")
    assert told == []


def test_an_interrupt_is_none_of_its_errors() -> None:
    with pytest.raises(KeyboardInterrupt), for_people("the picture", print):
        raise KeyboardInterrupt
