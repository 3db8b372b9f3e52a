"""Segments are whole or absent, keep their order, and can be read while others write."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliograph.pipeline.tracking.spool import Measurement, Segment, Spool, spools_below

measurements = st.builds(
    Measurement,
    st.text(min_size=1),
    st.floats(allow_nan=False),
    st.integers(0, 2**53),
    st.integers(0, 2**53),
)


@given(st.lists(st.lists(measurements, max_size=5), max_size=12))
def test_segments_come_back_as_they_were_in_their_order(
    tmp_path_factory: pytest.TempPathFactory, written: list[list[Measurement]]
) -> None:
    folder = str(tmp_path_factory.mktemp("spool"))
    for each in written:
        Spool(folder).append(Segment("run", each))  # each by a process of its own
    spool = Spool(folder)
    assert [spool.read(name) for name in spool.names()] == [Segment("run", m) for m in written]


def test_a_url_is_a_spool_too() -> None:
    spool = Spool("memory://spool-of-a-test/job/metrics/rank-0")
    segment = Segment("run", [Measurement("loss", 1.0, 2, 3)])
    name = spool.append(segment)
    ((found, other),) = spools_below("memory://spool-of-a-test/job/metrics")
    assert found == "rank-0"
    assert other.names() == [name]
    assert other.read(name) == segment
    other.remove(name)
    spool.remove(name)  # delivered by another process: no error
    assert spool.read(name) is None
    assert spool.names() == []


def test_what_was_not_written_to_its_end_is_not_there(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path))
    (tmp_path / ".writing-0000000001-aa.json").write_text('{"run_id": ')
    assert spool.names() == []
    spool.append(Segment("run", []))
    assert len(spool.names()) == 1


def test_there_are_no_spools_before_the_first_absence(tmp_path: Path) -> None:
    assert list(spools_below(str(tmp_path / "none"))) == []
