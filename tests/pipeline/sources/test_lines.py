"""Lines come back whole, in lists of bounded size, however the file is packed."""

import bz2
import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow.fs import LocalFileSystem

from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.sources import lines
from heliograph.pipeline.sources.lines import LONGEST_LINE, line_blocks


@given(st.binary(max_size=200), st.integers(1, 20))
def test_no_byte_is_lost_and_every_line_ends_at_its_end(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, block: int
) -> None:
    path = tmp_path_factory.mktemp("lines") / "text"
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BLOCK_BYTES", block)
        found = [line for some in line_blocks(str(path), LocalFileSystem()) for line in some]
    assert b"".join(found) == content
    assert all(line.count(b"\n") == 1 and line.endswith(b"\n") for line in found[:-1])


@pytest.mark.parametrize(
    ("suffix", "pack"), [("", bytes), (".gz", gzip.compress), (".BZ2", bz2.compress)]
)
def test_blocks_are_bounded_by_bytes(
    tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]
) -> None:
    content = [b"x" * 1_000_000 + b"\n"] * 4 + [b"y\n"] * 400_000
    (tmp_path / f"text{suffix}").write_bytes(pack(b"".join(content)))
    blocks = list(line_blocks(str(tmp_path / f"text{suffix}"), LocalFileSystem()))
    assert [line for block in blocks for line in block] == content
    assert max(sum(map(len, block)) for block in blocks) < 1_000_000 + 2 * lines.BLOCK_BYTES


def test_a_line_without_end_is_refused_by_number(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"short\n" + b"x" * (LONGEST_LINE + 1))
    with pytest.raises(RequestError, match=r"text' line 2 is longer than 16 MiB"):
        list(line_blocks(str(tmp_path / "text"), LocalFileSystem()))
