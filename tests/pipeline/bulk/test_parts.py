"""Parts are cut by the rows alone, whole or absent, and never mixed with others."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st
from pyarrow.fs import FSSpecHandler, PyFileSystem

from heliograph.pipeline.bulk import parts as translated_parts
from heliograph.pipeline.bulk.parts import WRITING, PartsFolder, Span, check_same, cut
from heliograph.pipeline.request.errors import RequestError
from tests.s3 import BUCKET


@given(
    st.lists(st.lists(st.integers(0, 30), max_size=12), max_size=6),
    st.integers(1, 7),
    st.data(),
)
def test_spans_are_all_rows_in_order_wherever_tables_end(
    tables: list[list[int]], rows: int, draw: st.DataObject
) -> None:
    """Other tables of the same rows make the same spans, as long as no row is large."""
    everything = [value for table in tables for value in table]
    middle = draw.draw(st.integers(0, len(everything)))
    others = [everything[:middle], everything[middle:]]
    found = list(cut([table_of(values) for values in tables], rows))
    assert found == list(cut([table_of(values) for values in others], rows))
    assert [value for _, span in found for value in span["n"].to_pylist()] == everything
    assert [first for first, _ in found] == list(range(0, len(everything), rows))


def table_of(values: list[int]) -> pa.Table:
    return pa.table({"n": pa.array(values, pa.int64())})


def test_large_rows_make_small_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translated_parts, "PART_BYTES", 1000)
    table = pa.table({"text": ["x" * 400] * 5 + ["y" * 5000] + ["z"] * 10})
    sizes = [span.num_rows for _, span in cut([table], rows=100)]
    assert sum(sizes) == 16
    spans = list(cut([table], rows=100))
    assert all(span.nbytes <= 1000 or span.num_rows == 1 for _, span in spans)
    assert [first for first, _ in spans] == [sum(sizes[:n]) for n in range(len(sizes))]


def test_names_sort_as_the_rows_do_and_say_which_they_are(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    spans = [Span(0, 0, 9), Span(0, 9, 100_000), Span(0, 100_009, 1), Span(12, 0, 3)]
    for span in reversed(spans):
        folder.write(span, table_of([1]), {})
    names = sorted(path.name for path in (tmp_path / "out").glob("*.parquet"))
    assert names == [span.name for span in spans]
    assert folder.done() == {0: set(spans[:3]), 12: set(spans[3:])}


def begun(tmp_path: Path) -> PartsFolder:
    folder = PartsFolder.at(str(tmp_path / "out"))
    folder.begin({"pins": {}})
    return folder


def test_what_is_half_written_is_not_there(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    (tmp_path / "out" / WRITING / "killed").write_bytes(b"PAR1 half of it")
    assert folder.done() == {}
    folder.write(Span(0, 0, 2), table_of([1, 2]), {"missing": 1})
    folder.finish({"rows": 2})
    assert folder.summary() == {"rows": 2}
    assert not (tmp_path / "out" / WRITING).exists()
    assert pq.read_table(tmp_path / "out").num_rows == 2, "as any reader of the folder sees it"


def test_failures_are_kept_with_the_part(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    spans = [Span(0, 0, 2), Span(0, 2, 2)]
    folder.write(spans[0], table_of([1, 2]), {"missing": 1, "too_long": 1})
    folder.write(spans[1], table_of([3, 4]), {"missing": 2})
    assert folder.failed(spans) == {"missing": 3, "too_long": 1}


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    with pytest.raises(RequestError, match="holds other files"):
        PartsFolder.at(str(tmp_path)).manifest()
    with pytest.raises(RequestError, match="is a file"):
        PartsFolder.at(str(tmp_path / "precious")).manifest()
    assert PartsFolder.at(str(tmp_path / "new")).manifest() is None


def test_a_start_that_died_before_its_manifest_is_nothing(tmp_path: Path) -> None:
    (tmp_path / WRITING).mkdir()
    assert PartsFolder.at(str(tmp_path)).manifest() is None


def test_any_file_system_does_as_well() -> None:
    write_and_read(PartsFolder(PyFileSystem(FSSpecHandler(MemoryFileSystem())), "bucket/out"))


@pytest.mark.usefixtures("s3")
def test_a_bucket_does_as_well() -> None:
    write_and_read(PartsFolder.at(f"{BUCKET}/out"))


def write_and_read(folder: PartsFolder) -> None:
    assert folder.manifest() is None
    folder.begin({"pins": {"beam": 1}})
    span = Span(3, 4096, 2)
    folder.write(span, table_of([1, 2]), {"missing": 1})
    folder.write(span, table_of([1, 2]), {"missing": 1})  # a second worker's
    assert folder.manifest() == {"pins": {"beam": 1}}
    assert folder.done() == {3: {span}}
    assert folder.failed([span]) == {"missing": 1}
    folder.finish({"rows": 2})
    assert folder.summary() == {"rows": 2}


def test_other_settings_are_refused_with_what_differs() -> None:
    then = {"engine": "torch", "decoding": {"beam": 5, "n_best": 1}, "files": [{"size": 1}, 2]}
    now = {"engine": "torch", "decoding": {"beam": 1, "n_best": 1}, "files": [{"size": 1}, 3]}
    check_same(then, dict(then), "out")
    with pytest.raises(RequestError) as raised:
        check_same(then, now, "out")
    assert "(decoding.beam: 5 then, 1 now; files: 2 then, 3 now)" in str(raised.value)
