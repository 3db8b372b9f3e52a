"""The file system of any place: a local path, or a URL."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pyarrow import ArrowException
from pyarrow.fs import FileSystem, LocalFileSystem, PyFileSystem

from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.storage.remote import RemoteFiles

Item = TypeVar("Item")
Answer = TypeVar("Answer")

AT_ONCE = 32
"""Looks at files far away, each of which takes as long as the network does."""


def filesystem_of(location: str) -> tuple[FileSystem, str]:
    """The file system of a local path or URL, and the path within it.

    A local path becomes absolute, because workers run in other folders; ~ is the user's own."""
    if "://" not in location:
        return LocalFileSystem(), os.path.abspath(os.path.expanduser(location))
    if location.startswith("hf://"):
        from huggingface_hub import HfFileSystem, constants, get_token

        # Explicit, so that workers reach what the driver reaches, whatever their environment; not
        # the cached instance, which when pickled forgets what equals this process' defaults.
        hub = HfFileSystem(endpoint=constants.ENDPOINT, token=get_token(), skip_instance_cache=True)
        return PyFileSystem(RemoteFiles(hub)), location.removeprefix("hf://")
    try:
        return FileSystem.from_uri(location)  # type: ignore[no-any-return]  # pyarrow has no types
    except (ArrowException, ValueError):
        import fsspec

        try:
            remote, path = fsspec.core.url_to_fs(location)
        except (ImportError, ValueError) as error:
            raise RequestError(f"{location!r} cannot be opened: {error}") from error
        return PyFileSystem(RemoteFiles(remote)), path


def absolute(location: str) -> str:
    """A local path as it is to be called in other folders; a URL as it is."""
    return location if "://" in location else filesystem_of(location)[1]


def in_parallel(look: Callable[[Item], Answer], items: Sequence[Item]) -> list[Answer]:
    """What `look` says of each, in their order; raises what it raises of the first that it does."""
    if len(items) < 2:
        return [look(item) for item in items]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(look, items))
