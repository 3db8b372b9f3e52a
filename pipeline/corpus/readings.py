"""What was read and cleaned of each part, kept until the corpus is whole.

    storage/readings/ATTEMPT/pairs-PART-STRETCH.parquet    as `stretches` says
    storage/readings/ATTEMPT/part-KEY.json                 when all of a part is there

A start that ends before its corpus is whole, by one bad file or killed, leaves what it has read;
the next one takes from there each part that is still the same, and reads the others (issue 15,
point 9). It copies them, since whoever left them may still be alive and delete them.
"""

import hashlib
import json
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pyarrow.fs import FileSystem, FileType

from heliograph.pipeline.corpus.cleaning import CLEANING_OPTIONS, CLEANING_VERSION, Limit
from heliograph.pipeline.corpus.stretches import Workshop
from heliograph.pipeline.request.data import Data
from heliograph.pipeline.sources.files import Files
from heliograph.pipeline.sources.source import Source
from heliograph.pipeline.storage.filesystems import filesystem_of
from heliograph.pipeline.storage.listing import list_folder

READINGS = "readings"
ABANDONED = timedelta(days=1)
"""The files of a start that died are deleted when none of them was touched for so long."""

Facts = dict[str, Any]
"""JSON: a part's `stretches`, as `Stretch._asdict`, and its `counts`."""


@dataclass(frozen=True)
class Reading:
    """One start's. Small: it goes to each task."""

    workshop: Workshop
    keys: tuple[str | None, ...]
    """Of each part: what its pairs follow from, as a hash; None: nobody can know whether it is
    still the same."""
    earlier: Mapping[str, str]
    """By key: the JSON of a part that another start has read."""

    def part(self, number: int, read: Callable[[], Facts]) -> Facts:
        """The facts of a part whose pairs are in the workshop afterwards: taken from an earlier
        start or, by `read`, from the source."""
        key = self.keys[number]
        facts = self._taken(number, self.earlier.get(key or "")) or read()
        if key is not None:
            files, folder = self.workshop.filesystem, self.workshop.folder
            with files.open_output_stream(f"{folder}/part-{key}.json") as stream:
                stream.write(json.dumps(facts).encode())
        return facts

    def end(self, *, whole: bool) -> None:
        """What was read is no longer needed; or it is, by the next start."""
        files, folder = self.workshop.filesystem, self.workshop.folder
        with suppress(OSError):
            if whole or not any(_is_part(each.base_name) for each in list_folder(files, folder)):
                files.delete_dir(folder)

    def _taken(self, number: int, path: str | None) -> Facts | None:
        if path is None:
            return None
        files, folder = self.workshop.filesystem, path.rpartition("/")[0]
        try:
            with files.open_input_stream(path) as stream:
                facts: Facts = json.loads(stream.read())
            there = Workshop(files, folder)
            for stretch in facts["stretches"]:
                source = there.path(stretch["part"], stretch["number"])
                files.copy_file(source, self.workshop.path(number, stretch["number"]))
                stretch["part"] = number
        except (OSError, ValueError):  # deleted meanwhile, or not written to its end
            return None
        return facts


def begin_reading(source: Source, data: Data, limit: Limit, storage: str) -> Reading:
    """Makes the folder of a start, and finds what others have left."""
    filesystem, root = filesystem_of(storage)
    root = f"{root.rstrip('/')}/{READINGS}"
    delete_abandoned(filesystem, root)
    left = list_folder(filesystem, root, recursive=True)
    found = {_key(each.base_name): each.path for each in left if _is_part(each.base_name)}
    keys = _keys(source, data, limit)
    workshop = Workshop(filesystem, f"{root}/{uuid.uuid4().hex[:12]}")
    filesystem.create_dir(workshop.folder, recursive=True)
    return Reading(workshop, keys, {key: found[key] for key in keys if key in found})


def delete_abandoned(filesystem: FileSystem, path: str, but: frozenset[str] = frozenset()) -> None:
    """Delete what starts that were killed have left in a folder, each in one of its own."""
    for attempt in list_folder(filesystem, path):
        if attempt.type != FileType.Directory or attempt.base_name in but:
            continue
        inside = list_folder(filesystem, attempt.path, recursive=True)
        touched = [each.mtime for each in inside if each.type == FileType.File] or [attempt.mtime]
        if None not in touched and max(touched) < datetime.now(UTC) - ABANDONED:
            with suppress(OSError):
                filesystem.delete_dir(attempt.path)


def _is_part(name: str) -> bool:
    return name.startswith("part-") and name.endswith(".json")


def _key(name: str) -> str:
    return name.removeprefix("part-").removesuffix(".json")


def _keys(source: Source, data: Data, limit: Limit) -> tuple[str | None, ...]:
    """Of files: their sizes and times of change, or their commit; how they are read and cleaned."""
    if not isinstance(source.origin, Files):
        return (None,) * len(source.parts)
    described = {each["path"]: each for each in source.identity["files"]}
    common = {
        "revision": source.identity.get("revision"),
        "columns": source.columns,
        "dialect": source.origin.dialect,
        "options": data.model_dump(include=CLEANING_OPTIONS),
        "version": CLEANING_VERSION,
    }
    keys = []
    for number, part in enumerate(source.parts):
        own = {
            "files": [described[path] for path in part.entry],
            "row_groups": repr(part.row_groups),
            "limit": limit.share(number, len(source.parts)),
        }
        text = json.dumps(common | own, sort_keys=True).encode()
        keys.append(hashlib.sha256(text).hexdigest()[:20])
    return tuple(keys)
