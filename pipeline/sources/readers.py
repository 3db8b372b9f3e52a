"""Files → tables of `rows.SCHEMA`, streamed: a bad value costs its row, a bad file says what it is.

Here pyarrow and Python read the files. Ray Data's own readers load a whole text or JSON file at
once, guess types from the values ("1984" becomes a number), and fail on the first row that differs
from those before it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileSystem

from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.sources.files import BY_SUFFIX, Dialect, format_of
from heliograph.pipeline.sources.lines import BLOCK_BYTES, LONGEST_LINE
from heliograph.pipeline.sources.rows import ROWS, Columns, column_of, leaves_of, table_of_batch
from heliograph.pipeline.sources.rows import SCHEMA as SCHEMA
from heliograph.pipeline.sources.text_readers import AGAIN, read_csv, read_json_lines, read_pair

BATCH_BYTES = 16 * 1024**2
"""Of a Parquet file with all its columns, roughly this much is read at once."""

_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"


def read_entry(
    entry: tuple[str, ...],
    filesystem: FileSystem,
    columns: Columns,
    row_groups: range | None = None,
    dialect: Dialect = BY_SUFFIX,
    csv_block: int = LONGEST_LINE,
    keep: pa.Schema | None = None,
) -> Iterator[pa.Table]:
    """The tables of one file or pair of files. `row_groups`: only these of a Parquet file;
    `dialect`: of CSV and TSV files; `csv_block`: bytes that are parsed
    at once, of which a row may not have more; `keep`: the types of all columns, see `rows`.

    Raises:
        RequestError: a column is not there, a file is damaged, cut off or not what its suffix says,
            its connection was lost, a line is too long, or a pair of files differs in its number of
            lines.
    """
    with in_words(entry):
        if len(entry) == 2:
            yield from read_pair(entry, filesystem, keep)
            return
        path = entry[0]
        match format_of(path):
            case "parquet":
                yield from _read_parquet(path, filesystem, columns, row_groups, keep)
            case "arrow":
                yield from _read_arrow(path, filesystem, columns, keep)
            case "json":
                yield from read_json_lines(path, filesystem, columns, keep)
            case _:
                yield from read_csv(path, filesystem, columns, csv_block, dialect, keep)


@contextmanager
def in_words(entry: tuple[str, ...]) -> Iterator[None]:
    """What pyarrow raises while it reads these files, as a RequestError that names them."""
    try:
        yield
    except (pa.ArrowException, OSError, EOFError) as error:
        raise _unreadable(" or ".join(repr(path) for path in entry), error) from error


def check_entry(
    entry: tuple[str, ...],
    filesystem: FileSystem,
    columns: Columns,
    dialect: Dialect = BY_SUFFIX,
) -> bool:
    """Whether there are rows, looking at the beginning only. Raises as `read_entry`."""
    if len(entry) == 1 and format_of(entry[0]) == "parquet":
        with open_parquet(entry[0], filesystem) as file:
            leaves_of(file.schema_arrow, columns, entry[0])
            return bool(file.metadata.num_rows)
    for block in (BLOCK_BYTES, LONGEST_LINE):
        tables = read_entry(entry, filesystem, columns, None, dialect, block)
        try:
            # Of a pair the second as well, which shows whether two short files end at one line.
            return bool(sum(table.num_rows for table in islice(tables, len(entry))))
        except RequestError:
            if block == LONGEST_LINE:
                raise
    raise AssertionError("the last block size returns or raises")


def _unreadable(names: str, error: Exception) -> RequestError:
    """What to say of an error that pyarrow met while it read."""
    reason = " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno is not None:  # of the file system, not of content
        return RequestError(f"{names} cannot be read: {error.strerror or reason}")
    if "Truncated compressed stream" in reason:
        return RequestError(f"{names} was cut off: its compressed data has no end; {AGAIN}")
    return RequestError(f"{names} is damaged or not what its suffix says: {reason}; {AGAIN}")


# --- Parquet and Arrow --------------------------------------------------------------------------


def parquet_row_groups(path: str, filesystem: FileSystem) -> list[int]:
    """The size of each row group in bytes, uncompressed."""
    with open_parquet(path, filesystem) as file:
        metadata = file.metadata
        return [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]


def open_parquet(path: str, filesystem: FileSystem) -> pq.ParquetFile:
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


def _read_parquet(
    path: str,
    filesystem: FileSystem,
    columns: Columns,
    row_groups: range | None,
    keep: pa.Schema | None,
) -> Iterator[pa.Table]:
    with open_parquet(path, filesystem) as file:
        leaves = leaves_of(file.schema_arrow, columns, path)
        groups = None if row_groups is None else list(row_groups)
        wanted = None if keep else list(dict.fromkeys(leaves))
        rows = _rows_at_once(file.metadata) if keep else ROWS
        for batch in file.iter_batches(rows, groups, wanted):
            yield table_of_batch(batch, leaves, keep)


def _rows_at_once(metadata: pq.FileMetaData) -> int:
    """At most ROWS; fewer where the columns are large: pictures, say."""
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    total = sum(int(group.total_byte_size) for group in groups)
    return max(1, min(ROWS, BATCH_BYTES * int(metadata.num_rows) // max(total, 1)))


def _read_arrow(
    path: str, filesystem: FileSystem, columns: Columns, keep: pa.Schema | None
) -> Iterator[pa.Table]:
    leaves = None
    for batch in arrow_batches(path, filesystem):
        leaves = leaves or leaves_of(batch.schema, columns, path)
        for values in batch.columns if keep else (column_of(batch, leaf) for leaf in leaves):
            _check_offsets(values)
        for start in range(0, batch.num_rows, ROWS):
            yield table_of_batch(batch.slice(start, ROWS), leaves, keep)


def arrow_batches(path: str, filesystem: FileSystem) -> Iterator[pa.RecordBatch]:
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
