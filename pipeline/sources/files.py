"""Which files a location of the recipe means: hub names, folders, globs and plain paths.

A folder written by `save_to_disk` lists its own files; a hub dataset and any other folder go by the
rules of `datasets` (see `hub`). Nothing of the data itself is read here.
"""

import json
import os
import re
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from fsspec.utils import glob_translate
from pyarrow.fs import FileSystem, FileType, LocalFileSystem

from heliograph.pipeline.request.data import Data, Location, PairOfFiles, Stream
from heliograph.pipeline.request.errors import RequestError, Unreachable, did_you_mean, one_line
from heliograph.pipeline.sources.formats import BY_SUFFIX, format_of, is_readable
from heliograph.pipeline.sources.hub import (
    dataset_builder,
    hub_revision,
    passed_over,
    settings_of,
    split_files,
)
from heliograph.pipeline.sources.lines import COMPRESSIONS, NOT_UNPACKED
from heliograph.pipeline.sources.rows import USUAL, Dialect
from heliograph.pipeline.storage.filesystems import filesystem_of, in_parallel
from heliograph.pipeline.storage.listing import list_folder

_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")


@dataclass(frozen=True)
class Files:
    """The files of one split, in their order; all of them are there."""

    entries: tuple[tuple[str, ...], ...]
    """Each one file, or the two of a pair whose line n are each other's translation."""
    filesystem: FileSystem
    """Opens the entries' paths, in this process and, pickled, in any other."""
    identity: dict[str, Any]
    """JSON. The same identity, the same data: revision, or the files' sizes and times of change."""
    dialect: Dialect = USUAL
    passed_over: tuple[str, ...] = ()
    """Files beside them that are named like a split and are in none."""

    @property
    def are_local(self) -> bool:
        """Whether they are this machine's, and not reached by a URL."""
        return isinstance(self.filesystem, LocalFileSystem)


def find_files(location: Location, data: Data, split: str) -> Files | Stream:
    """The files that hold `split` of `location`; a stream, where only `datasets` can read them.

    Raises:
        RequestError: something is not there, cannot be reached, or has a name that is not read.
    """
    if isinstance(location, Stream):
        return location
    try:
        return _find_files(location, data, split)
    except (UnicodeEncodeError, UnicodeDecodeError) as error:  # Arrow's, of a name on this machine
        name = os.fsencode(error.object) if isinstance(error.object, str) else error.object
        raise RequestError(f"the file name {name!r} is not UTF-8: rename it") from error


def _find_files(location: str | list[str] | PairOfFiles, data: Data, split: str) -> Files | Stream:
    if isinstance(location, PairOfFiles):
        return _pairs_of_files(location)
    if isinstance(location, list):
        if not location:
            raise RequestError("a list of files must not be empty")
        return _plain_files(location)
    if (folder := _folder(location)) is not None:
        return _saved_files(location, *folder, split) or _folder_files(location, data, split)
    if is_hub_name(location) and not os.path.exists(location):
        return _hub_files(location, data, split)
    return _plain_files([location])


def is_hub_name(location: str) -> bool:
    """Whether it looks like NAME or OWNER/NAME, and not like a file that we read."""
    return bool(_HUB_NAME.fullmatch(location)) and not location.lower().endswith(
        (*BY_SUFFIX, *COMPRESSIONS)
    )


# --- Plain files and globs ----------------------------------------------------------------------


def _plain_files(locations: list[str]) -> Files:
    filesystem, found = _existing(locations)
    for path in found:
        format_of(path)
    return _described([(path,) for path in found], filesystem, {"location": locations})


def _pairs_of_files(location: PairOfFiles) -> Files:
    """Of globs the first of each side are a pair, then the second, and so on, by their names."""
    filesystem, sources = _existing([location.source])
    other, targets = _existing([location.target])
    if filesystem != other:
        raise RequestError(
            f"{location.target!r} is in another file system than {location.source!r}"
        )
    if len(sources) != len(targets):
        raise RequestError(
            f"{location.source!r} are {len(sources)} files and {location.target!r} "
            f"{len(targets)}: each needs one that holds its translation"
        )
    for path in (*sources, *targets):
        if (suffix := PurePosixPath(path).suffix.lower()) in NOT_UNPACKED:
            raise RequestError(
                f"{path!r}: {suffix} files are not unpacked here; unpack it, or pack it again as "
                f"one of {', '.join(COMPRESSIONS)}"
            )
    pairs: list[tuple[str, ...]] = [*zip(sources, targets, strict=True)]
    return _described(pairs, filesystem, {"location": location.model_dump()})


def _existing(locations: list[str]) -> tuple[FileSystem, list[str]]:
    """Every location's files in order, a glob's sorted."""
    filesystem, _ = filesystem_of(locations[0])
    paths, found = [], []
    for location in locations:
        own, path = filesystem_of(location)
        if own != filesystem:
            raise RequestError(f"{location!r} is in another file system than {locations[0]!r}")
        paths.append(path)
    infos = in_parallel(filesystem.get_file_info, paths)
    for location, info in zip(locations, infos, strict=True):
        if info.type == FileType.File:  # whatever characters it has
            found.append(info.path)
        elif any(c in location for c in "*?[") and (matching := _glob(filesystem, info.path)):
            found += matching
        else:
            folder = os.path.dirname(location) or "."
            there = "" if "://" in location or os.path.isdir(folder) else f", nor is {folder!r}"
            raise Unreachable(f"{location!r}: no such file{there}")
    return filesystem, found


def _glob(filesystem: FileSystem, pattern: str) -> list[str]:
    parts = PurePosixPath(pattern).parts
    plain = next(i for i, part in enumerate(parts) if any(c in part for c in "*?["))
    base = str(PurePosixPath(*parts[:plain]))
    matches = re.compile(glob_translate(pattern)).match
    infos = list_folder(filesystem, base, recursive=plain < len(parts) - 1)
    return sorted(i.path for i in infos if i.type == FileType.File and matches(i.path))


def _described(
    entries: list[tuple[str, ...]],
    filesystem: FileSystem,
    identity: dict[str, Any],
    dialect: Dialect = USUAL,
) -> Files:
    infos = in_parallel(filesystem.get_file_info, [path for entry in entries for path in entry])
    files = [{"path": i.path, "size": i.size, "modified": i.mtime_ns} for i in infos]
    return Files(tuple(entries), filesystem, identity | {"files": files}, dialect)


# --- Folders, and the hub, whose datasets are laid out like them --------------------------------


def _folder(location: str) -> tuple[FileSystem, str] | None:
    """The folder's file system and its path in it; None: the location is no folder."""
    if "://" not in location:
        path = os.path.abspath(os.path.expanduser(location))
        return (LocalFileSystem(), path) if os.path.isdir(path) else None
    filesystem, path = filesystem_of(location)
    path = path.rstrip("/")
    try:
        kind = filesystem.get_file_info(path).type
    except Exception as error:  # whatever the file system's client raises
        raise Unreachable(f"{location!r} cannot be looked up: {one_line(error)}") from error
    return (filesystem, path) if kind == FileType.Directory else None


def _saved_files(location: str, filesystem: FileSystem, path: str, split: str) -> Files | None:
    """The files of `Dataset.save_to_disk`, or of a split of `DatasetDict.save_to_disk`; None: the
    folder is neither. A `Dataset` has one split, which is taken whatever it is called."""
    splits = _json(filesystem, f"{path}/dataset_dict.json")
    if splits is not None:
        if split not in splits["splits"]:
            hint = did_you_mean(split, splits["splits"])
            raise RequestError(f"{location!r} has no split {split!r}; {hint}")
        path = f"{path}/{split}"
    state = _json(filesystem, f"{path}/state.json")
    if state is None and splits is None:
        return None
    if state is None:
        raise RequestError(f"{path!r} has no state.json: save_to_disk did not end; save it again")
    found = [f"{path}/{file['filename']}" for file in state["_data_files"]]
    for info in in_parallel(filesystem.get_file_info, found):
        if info.type != FileType.File:
            raise RequestError(f"{info.path!r}: no such file, but state.json beside it names it")
    return _described(
        [(file,) for file in found], filesystem, {"location": location, "split": split}
    )


def _json(filesystem: FileSystem, path: str) -> Any:
    """A small file's content; None: there is none."""
    if filesystem.get_file_info(path).type != FileType.File:
        return None
    with filesystem.open_input_stream(path) as file:
        try:
            return json.loads(file.read())
        except ValueError as error:
            raise RequestError(f"{path!r} is not JSON ({error}): save the folder again") from error


def _folder_files(location: str, data: Data, split: str) -> Files | Stream:
    if "://" in location and not location.startswith("file://"):
        raise RequestError(
            f"{location!r} is a folder far away, and none of save_to_disk: name its files, as in "
            f"{location.rstrip('/') + '/train-*.parquet'!r}"
        )
    path = os.path.abspath(location.removeprefix("file://"))
    builder = dataset_builder(path, data.configuration)
    files = split_files(builder, split, location)
    if not _reads_directly(builder, files):
        return Stream(stream=path)
    filesystem, found = _existing(files)
    identity = {"location": location, "split": split, "configuration": data.configuration}
    dialect = Dialect(settings_of(builder).get("sep"))
    described = _described([(file,) for file in found], filesystem, identity, dialect)
    there = list_folder(filesystem, path, recursive=True)
    others = [i.path for i in there if i.type == FileType.File and is_readable(i.path)]
    return replace(described, passed_over=tuple(passed_over(builder, path, others)))


def _hub_files(name: str, data: Data, split: str) -> Files | Stream:
    revision = hub_revision(name, data.revision)
    builder = dataset_builder(name, data.configuration, revision)
    paths = split_files(builder, split, name)
    if not _reads_directly(builder, paths):
        return Stream(stream=name)
    filesystem, _ = filesystem_of(paths[0])
    found = [path.removeprefix("hf://") for path in paths]
    try:
        infos = in_parallel(filesystem.get_file_info, found)
    except Exception as error:
        raise Unreachable(f"{name!r}: its files cannot be listed: {one_line(error)}") from error
    identity = {
        "location": name,
        "split": split,
        "configuration": data.configuration,
        "revision": revision,
        "files": [{"path": i.path, "size": i.size} for i in infos],
    }
    entries = tuple((path,) for path in found)
    return Files(entries, filesystem, identity, Dialect(settings_of(builder).get("sep")))


def _reads_directly(builder: Any, paths: list[str]) -> bool:
    """Whether the readers here know the files' formats, and all that the README says of them."""
    if not all(map(is_readable, paths)):
        return False
    settings = settings_of(builder)
    known = not settings.keys() - {"sep", "delimiter"} and len(str(settings.get("sep", ","))) == 1
    return known and (not settings or all(format_of(path).has_dialects for path in paths))
