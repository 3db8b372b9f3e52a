"""A recipe's data, looked for; and what they were when they were prepared, for when they are away.

    storage/sources/KEY.json      KEY is a hash of what the recipe says of the source

A prepared corpus is found by its source's identity, which takes a look at the source: a hub that
does not answer, or a file that was moved away, must not stop a job whose pairs lie on its storage
(issue 15, point 13).
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from heliograph.pipeline.request.data import Data, Location, PairOfFiles, Stream
from heliograph.pipeline.request.errors import RequestError, Unreachable
from heliograph.pipeline.sources.source import Source, check_source, find_source
from heliograph.pipeline.storage.filesystems import absolute, filesystem_of
from heliograph.pipeline.storage.listing import write_whole


@dataclass(frozen=True)
class KnownSource:
    """What there was to know of a source without its content."""

    identity: dict[str, Any]
    unbounded: bool
    prepared: str
    """When that was."""


@dataclass(frozen=True)
class FoundData:
    """One data set that a recipe names, looked for once in a start: all that follows takes what is
    here, so that nothing asks a hub or lists a bucket a second time."""

    location: Location
    data: Data
    """Its own options."""
    split: str
    source: Source | KnownSource
    """What it is; where it cannot be reached, what it was when its corpus was prepared."""
    away: Unreachable | None = None
    """Why it cannot be reached."""


def find_recipe_data(data: Data, storage: str) -> dict[str, FoundData]:
    """All that a recipe trains on, in its order, then its validation data, and its test data if it
    has any; by the recipe's key: `data.train[2]` is the third corpus of a mixture. Without Ray, see
    `check_source`.

    Raises:
        RequestError: one of them cannot be read, under its key. What cannot be reached is let
            through where it was prepared before, on this storage.
    """
    if not data.ingredients:
        raise RequestError("data.train: the list of corpora is empty")
    mixed = isinstance(data.train, list) and not isinstance(data.train[0], str)
    asked = {
        f"data.train[{number}]" if mixed else "data.train": (location, own, own.train_split)
        for number, (location, own, _) in enumerate(data.ingredients)
    }
    asked["data.validation"] = (data.validation, data, data.validation_split)
    if data.test is not None:
        asked["data.test"] = (data.test, data, data.test_split)
    found = {}
    for key, (location, own, split) in asked.items():
        try:
            found[key] = find_data(location, own, split, storage)
            if isinstance(source := found[key].source, Source):
                check_source(source)
        except RequestError as error:
            message = str(error)
            if not message.startswith("data."):
                message = f"{key}: {message}"
            elif mixed and own is not data:
                message = f"{key}.{message.removeprefix('data.')}"
            raise RequestError(message) from None
    return found


def find_data(location: Location, data: Data, split: str, storage: str) -> FoundData:
    """One data set, of which nothing is read.

    Raises:
        RequestError: it is not there, or cannot be reached and was never prepared.
    """
    try:
        return FoundData(location, data, split, find_source(location, data, split))
    except Unreachable as error:
        known = recall(storage, location, data, split)
        if known is None:
            raise
        return FoundData(location, data, split, known, error)


def remember(storage: str, found: FoundData) -> None:
    """To be called when its corpus is prepared."""
    source = found.source
    assert isinstance(source, Source)
    now = datetime.now(UTC).isoformat(timespec="minutes")
    content = json.dumps(asdict(KnownSource(source.identity, source.unbounded, now)))
    files, root = filesystem_of(f"{storage}/sources")
    by_name = "revision" in source.identity or "://" in json.dumps(source.identity)
    paths = list(_paths(root, found.location, found.data, found.split))
    write_whole(files, paths[0 if by_name else 1], content.encode())


def recall(storage: str, location: Location, data: Data, split: str) -> KnownSource | None:
    """None: nothing was prepared of it on this storage."""
    files, root = filesystem_of(f"{storage}/sources")
    for path in _paths(root, location, data, split):
        try:
            with files.open_input_stream(path) as file:
                return KnownSource(**json.loads(file.read()))
        except FileNotFoundError:
            continue
    return None


def _paths(root: str, location: Location, data: Data, split: str) -> Iterator[str]:
    """By its name, for what has the same name everywhere; and by its place on this machine."""
    asked = data.model_dump(include={"source", "target", "columns", "configuration", "revision"})
    for names in (_names(location), [absolute(name) for name in _names(location)]):
        kind = type(location).__name__
        text = json.dumps([kind, names, split, asked], sort_keys=True)
        yield f"{root}/{hashlib.sha256(text.encode()).hexdigest()[:20]}.json"


def _names(location: Location) -> list[str]:
    if isinstance(location, str):
        return [location]
    if isinstance(location, PairOfFiles):
        return [location.source, location.target]
    if isinstance(location, Stream):
        files = [location.files] if isinstance(location.files, str) else location.files or []
        return [location.stream, *files]
    return location
