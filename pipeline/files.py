"""Which files a location of the recipe means: hub names, folders, globs and plain paths.

A hub dataset and a folder on disk go by the rules of `datasets`: the configurations in the README,
else the split patterns (train.jsonl, data/validation-00000-of-00001.parquet, …). Nothing of the
data itself is read here.
"""

import logging
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from fsspec.utils import glob_translate
from pyarrow import ArrowException
from pyarrow.fs import (
    FileSelector,
    FileSystem,
    FileType,
    FSSpecHandler,
    LocalFileSystem,
    PyFileSystem,
)

from pipeline.errors import RequestError, did_you_mean
from pipeline.recipe import Data, Location, PairOfFiles

FORMATS = {
    ".parquet": "parquet",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
}
"""By suffix. The text formats may be compressed: .gz, .bz2, .zst or .lz4 after the suffix."""
COMPRESSIONS = (".gz", ".bz2", ".zst", ".lz4")
HUB_SECONDS = 10.0
"""The hub answers its first request within this time or counts as out of reach."""

_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")
_READABLE = "Parquet, JSON lines, CSV and TSV: " + ", ".join(FORMATS)


@dataclass(frozen=True)
class Files:
    """The files of one split, in their order; all of them are there."""

    entries: tuple[tuple[str, ...], ...]
    """Each one file, or the two of a pair whose line n are each other's translation."""
    filesystem: FileSystem
    """Opens the entries' paths, in this process and, pickled, in any other."""
    identity: dict[str, Any]
    """JSON. Two locations with the same identity hold the same data: revision, or the files' sizes
    and times of change."""


def find_files(location: Location, data: Data, split: str) -> Files:
    """The files that hold `split` of `location`.

    Raises:
        RequestError: something is not there, cannot be reached, or has a suffix that is not read.
    """
    if isinstance(location, PairOfFiles):
        paths = [location.source, location.target]
        filesystem, found = _existing(paths)
        return _described([tuple(found)], filesystem, {"location": location.model_dump()})
    if isinstance(location, list):
        if not location:
            raise RequestError("a list of files must not be empty")
        return _plain_files(location)
    if os.path.isdir(location):
        paths, _ = _split_of_dataset(os.path.abspath(location), data, split, revision=None)
        filesystem, found = _existing(paths)
        identity = {"location": location, "split": split, "configuration": data.configuration}
        return _described([(path,) for path in found], filesystem, identity)
    if _is_hub_name(location) and not os.path.exists(location):
        return _hub_files(location, data, split)
    return _plain_files([location])


def filesystem_of(location: str) -> tuple[FileSystem, str]:
    """The file system of a local path or URL, and the path within it.

    A local path becomes absolute, because workers run in other folders."""
    if "://" not in location:
        return LocalFileSystem(), os.path.abspath(location)
    if location.startswith("hf://"):
        from huggingface_hub import HfFileSystem, constants, get_token

        # Explicit, so that workers reach what the driver reaches, whatever their environment; not
        # the cached instance, which when pickled forgets what equals this process' defaults.
        hub = HfFileSystem(endpoint=constants.ENDPOINT, token=get_token(), skip_instance_cache=True)
        return PyFileSystem(FSSpecHandler(hub)), location.removeprefix("hf://")
    try:
        return FileSystem.from_uri(location)  # type: ignore[no-any-return]
    except (ArrowException, ValueError):
        import fsspec

        try:
            remote, path = fsspec.core.url_to_fs(location)
        except (ImportError, ValueError) as error:
            raise RequestError(f"{location!r} cannot be opened: {error}") from error
        return PyFileSystem(FSSpecHandler(remote)), path


def format_of(path: str) -> str:
    """parquet, json, csv or tsv, by the suffix; RequestError if it is none of them."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(path).suffixes]
    compressed = bool(suffixes) and suffixes[-1] in COMPRESSIONS
    suffix = "".join(suffixes[-2:-1] if compressed else suffixes[-1:])
    if suffix not in FORMATS or (compressed and suffix == ".parquet"):
        raise RequestError(f"{path!r}: cannot read files like this; what is read is {_READABLE}")
    return FORMATS[suffix]


# --- Plain files and globs ----------------------------------------------------------------------


def _plain_files(locations: list[str]) -> Files:
    filesystem, found = _existing(locations)
    for path in found:
        format_of(path)
    return _described([(path,) for path in found], filesystem, {"location": locations})


def _existing(locations: list[str]) -> tuple[FileSystem, list[str]]:
    """Every location's files in order, a glob's sorted."""
    filesystem, found = None, []
    for location in locations:
        own, path = filesystem_of(location)
        if filesystem is not None and own != filesystem:
            raise RequestError(f"{location!r} is in another file system than {locations[0]!r}")
        filesystem = own
        found += _glob(own, path) if any(c in location for c in "*?[") else [path]
        if not found or filesystem.get_file_info(found[-1]).type != FileType.File:
            folder = os.path.dirname(location) or "."
            there = "" if "://" in location or os.path.isdir(folder) else f", nor is {folder!r}"
            raise RequestError(f"{location!r}: no such file{there}")
    assert filesystem is not None
    return filesystem, found


def _glob(filesystem: FileSystem, pattern: str) -> list[str]:
    parts = PurePosixPath(pattern).parts
    plain = next(i for i, part in enumerate(parts) if any(c in part for c in "*?["))
    base = str(PurePosixPath(*parts[:plain]))
    matches = re.compile(glob_translate(pattern)).match
    selector = FileSelector(base, recursive=plain < len(parts) - 1, allow_not_found=True)
    infos = filesystem.get_file_info(selector)
    return sorted(i.path for i in infos if i.type == FileType.File and matches(i.path))


def _described(
    entries: list[tuple[str, ...]], filesystem: FileSystem, identity: dict[str, Any]
) -> Files:
    infos = filesystem.get_file_info([path for entry in entries for path in entry])
    files = [{"path": i.path, "size": i.size, "modified": i.mtime_ns} for i in infos]
    return Files(tuple(entries), filesystem, identity | {"files": files})


# --- The hub, and folders laid out like it ------------------------------------------------------


def _is_hub_name(location: str) -> bool:
    return bool(_HUB_NAME.fullmatch(location)) and not location.lower().endswith(
        (*FORMATS, *COMPRESSIONS)
    )


def _hub_files(name: str, data: Data, split: str) -> Files:
    revision = _hub_revision(name, data.revision)
    paths, _ = _split_of_dataset(name, data, split, revision)
    filesystem, _ = filesystem_of(paths[0])
    found = [path.removeprefix("hf://") for path in paths]
    identity = {
        "location": name,
        "split": split,
        "configuration": data.configuration,
        "revision": revision,
        "files": [{"path": i.path, "size": i.size} for i in filesystem.get_file_info(found)],
    }
    return Files(tuple((path,) for path in found), filesystem, identity)


def _hub_revision(name: str, revision: str | None) -> str:
    """The commit that `revision` is now: one request, so that no network is noticed at once."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub import errors as hub_errors

    try:
        info = HfApi().dataset_info(name, revision=revision, timeout=HUB_SECONDS)
    except hub_errors.GatedRepoError as error:
        raise RequestError(
            f"{name!r} is a gated dataset: ask for access at {constants.ENDPOINT}/datasets/{name} "
            "and set HF_TOKEN to a token of yours"
        ) from error
    except hub_errors.RevisionNotFoundError as error:
        raise RequestError(f"data.revision: {name!r} has no revision {revision!r}") from error
    except (hub_errors.RepositoryNotFoundError, hub_errors.HFValidationError) as error:
        raise RequestError(
            f"{name!r} is neither a file or folder here nor a dataset at {constants.ENDPOINT}: "
            "check the spelling (OWNER/NAME); a private dataset needs HF_TOKEN"
        ) from error
    except Exception as error:  # whatever its HTTP client raises when there is no answer
        raise RequestError(
            f"{name!r} is neither a file or folder here, nor could {constants.ENDPOINT} be asked "
            f"for a dataset of that name ({type(error).__name__}: {error}): check the network and "
            "HF_ENDPOINT, or name local files"
        ) from error
    assert info.sha is not None
    return info.sha


def _split_of_dataset(
    path: str, data: Data, split: str, revision: str | None
) -> tuple[list[str], list[str]]:
    """The paths of the split's files, and the names of all splits."""
    with _quiet(), tempfile.TemporaryDirectory() as cache:
        import datasets

        try:
            builder = datasets.load_dataset_builder(
                path, data.configuration, revision=revision, cache_dir=cache
            )
        except Exception as error:  # `datasets` raises many kinds for what is not as it should be
            reason = " ".join(str(error).split())
            if isinstance(error, ValueError) and "onfig" in reason:
                raise RequestError(f"data.configuration: {path!r}: {reason}") from error
            raise RequestError(f"{path!r} cannot be read as a dataset: {reason}") from error
    splits = {str(name): list(files) for name, files in (builder.config.data_files or {}).items()}
    if split not in splits:
        raise RequestError(f"{path!r} has no split {split!r}; {did_you_mean(split, splits)}")
    for file in splits[split]:
        format_of(file)
    return splits[split], list(splits)


@contextmanager
def _quiet() -> Iterator[None]:
    """`datasets` shows progress bars and warnings for what ends in one error message anyway."""
    import datasets

    logger, bars = logging.getLogger("huggingface_hub"), datasets.are_progress_bars_disabled()
    level = logger.level
    logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if not bars:
            datasets.enable_progress_bars()
