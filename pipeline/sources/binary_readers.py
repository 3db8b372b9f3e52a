"""Parquet and Arrow files → tables of `rows.SCHEMA`.

Errors that pyarrow meets are put in words by `formats`, which calls what is here.
"""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileSystem

from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.sources.lines import AGAIN
from heliograph.pipeline.sources.rows import ROWS, Reading, column_of, leaves_of, table_of_batch

BATCH_BYTES = 16 * 1024**2
"""Of a Parquet file with all its columns, roughly this much is read at once."""

_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"

# --- Parquet ------------------------------------------------------------------------------------


def read_parquet(path: str, filesystem: FileSystem, reading: Reading) -> Iterator[pa.Table]:
    keep = reading.keep
    with _open_parquet(path, filesystem) as file:
        leaves = leaves_of(file.schema_arrow, reading.columns, path)
        groups = None if reading.row_groups is None else list(reading.row_groups)
        wanted = None if keep else list(dict.fromkeys(leaves))
        rows = _rows_at_once(file.metadata) if keep else ROWS
        for batch in file.iter_batches(rows, groups, wanted):
            yield table_of_batch(batch, leaves, keep)


def look_at_parquet(
    path: str, filesystem: FileSystem, reading: Reading
) -> Iterator[tuple[pa.Schema, int]]:
    """From its end alone."""
    with _open_parquet(path, filesystem) as file:
        groups = reading.row_groups or range(file.metadata.num_row_groups)
        yield file.schema_arrow, sum(file.metadata.row_group(group).num_rows for group in groups)


def parquet_row_groups(path: str, filesystem: FileSystem) -> list[int]:
    """The size of each row group in bytes, uncompressed."""
    with _open_parquet(path, filesystem) as file:
        metadata = file.metadata
        return [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]


def _open_parquet(path: str, filesystem: FileSystem) -> pq.ParquetFile:
    """The file, of which only the end was read; raises RequestError if that is none of Parquet."""
    try:
        return pq.ParquetFile(path, filesystem=filesystem, page_checksum_verification=True)
    except (pa.ArrowInvalid, OSError) as error:
        with filesystem.open_input_file(path) as file:
            begins = file.read(4)
        if begins == b"PAR1":
            raise RequestError(
                f"{path!r} was cut off: Parquet's end is missing; {AGAIN}"
            ) from error
        reason = " ".join(str(error).split())
        raise RequestError(f"{path!r} is not Parquet: {reason}") from error


def _rows_at_once(metadata: pq.FileMetaData) -> int:
    """At most ROWS; fewer where the columns are large: pictures, say."""
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    total = sum(int(group.total_byte_size) for group in groups)
    return max(1, min(ROWS, BATCH_BYTES * int(metadata.num_rows) // max(total, 1)))


# --- Arrow --------------------------------------------------------------------------------------


def read_arrow(path: str, filesystem: FileSystem, reading: Reading) -> Iterator[pa.Table]:
    leaves, keep = None, reading.keep
    for batch in _arrow_batches(path, filesystem):
        leaves = leaves or leaves_of(batch.schema, reading.columns, path)
        for values in batch.columns if keep else (column_of(batch, leaf) for leaf in leaves):
            _check_offsets(values)
        for start in range(0, batch.num_rows, ROWS):
            yield table_of_batch(batch.slice(start, ROWS), leaves, keep)


def look_at_arrow(path: str, filesystem: FileSystem, _: Reading) -> Iterator[tuple[pa.Schema, int]]:
    for batch in _arrow_batches(path, filesystem):
        yield batch.schema, batch.num_rows


def _arrow_batches(path: str, filesystem: FileSystem) -> Iterator[pa.RecordBatch]:
    """Of Arrow's stream, which is what `datasets` writes, or of Arrow's file."""
    with filesystem.open_input_file(path) as file:
        is_file = file.read(6) == b"ARROW1"
        file.seek(max(0, file.size() - len(_END_OF_STREAM)))
        ended = file.read() == _END_OF_STREAM  # a cut between two batches leaves no other trace
        file.seek(0)
        if not (is_file or ended):
            raise RequestError(f"{path!r} was cut off: Arrow's end of stream is missing; {AGAIN}")
        reader = pa.ipc.open_file(file) if is_file else pa.ipc.open_stream(file)
        yield pa.RecordBatch.from_pylist([], reader.schema)  # the schema, if there is nothing else
        yield from map(reader.get_batch, range(reader.num_record_batches)) if is_file else reader


def _check_offsets(values: pa.Array) -> None:
    """ArrowInvalid if they point outside of the text, as damage makes them: reading there would be
    the end of the process. That the text is UTF-8 is not asked of the whole batch."""
    plain = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}
    (values.view(plain[values.type]) if values.type in plain else values).validate(full=True)
