"""What a job was begun with: its data and its tokenizer, kept in its folder.

A recipe names files, and what is in them can change between two starts. Old weights must not go on
with other data, nor with other token ids, and a finished job must not answer for data that it has
not seen (issue 15, point 4).
"""

import json
from collections.abc import Mapping
from typing import Any

from heliograph.pipeline.corpus.found_data import FoundData
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.sources.source import describe
from heliograph.pipeline.steps.prepare import Prepared
from heliograph.pipeline.steps.tokenizer import Tokenizer
from heliograph.pipeline.storage.filesystems import filesystem_of
from heliograph.pipeline.storage.listing import list_folder, write_whole

DATA = "data.json"


def check_sources(folder: str, found: Mapping[str, FoundData], job: str) -> bool:
    """Before anything is prepared: whether the sources are those that the job was begun with, as
    far as that is seen without reading them.

    Raises:
        RequestError: they surely are not.
    """
    kept = _read(folder)
    if kept is None:
        return True
    untouched = True
    for key, now in _identities(found).items():
        before = kept["sources"].get(key)
        if _without_times(before) != _without_times(now):
            raise _changed(job, key, _named(before), _named(now))
        untouched = untouched and before == now
    return untouched


def check_contents(
    folder: str, found: Mapping[str, FoundData], prepared: Prepared, job: str
) -> None:
    """Before training: that the pairs and the tokenizer are those that the job was begun with. At
    its first start they are kept.

    Raises:
        RequestError: they are others.
    """
    digests = {
        f"{key} {describe(data.location)}": corpus.digest
        for (key, data), corpus in zip(found.items(), prepared.corpora, strict=True)
    }
    digests["tokenizer"] = Tokenizer.load(prepared.tokenizer).digest
    kept = _read(folder)
    if kept is None:
        files, root = filesystem_of(folder)
        folders = [_below_storage(folder) for folder in prepared.folders]
        content = {"sources": _identities(found), "digests": digests, "folders": folders}
        write_whole(files, f"{root}/{DATA}", json.dumps(content, indent=1).encode())
        return
    for what, digest in digests.items():
        before = kept["digests"].get(what)
        if before != digest:
            raise _changed(job, what, f"sha256 {str(before)[:12]}", f"sha256 {digest[:12]}")


def has_begun(folder: str) -> bool:
    """Whether a job was ever started in this folder."""
    files, root = filesystem_of(folder)
    return bool(list_folder(files, root))


def _below_storage(folder: str) -> str:
    """KIND/KEY."""
    return "/".join(folder.rstrip("/").split("/")[-2:])


def _changed(job: str, what: str, before: str, now: str) -> RequestError:
    return RequestError(
        f"{what} is no longer what job {job} was begun with ({before}, now {now}): put it back, or "
        "begin another job on it with train --new"
    )


def _read(folder: str) -> Any:
    """None: the job is new."""
    files, root = filesystem_of(folder)
    try:
        with files.open_input_stream(f"{root}/{DATA}") as file:
            return json.loads(file.read())
    except FileNotFoundError:
        return None


def _identities(found: Mapping[str, FoundData]) -> dict[str, Any]:
    """As JSON gives them back; of what cannot be reached, that of when it was prepared."""
    identities = {key: data.source.identity for key, data in found.items()}
    return json.loads(json.dumps(identities))  # type: ignore[no-any-return]


def _without_times(identity: Any) -> Any:
    """A file that was only touched, or copied, is the same by its name and size."""
    if not isinstance(identity, dict) or not isinstance(identity.get("files"), list):
        return identity
    files = [
        {key: value for key, value in file.items() if key != "modified"}
        if isinstance(file, dict)
        else file
        for file in identity["files"]
    ]
    return identity | {"files": files}


def _named(identity: Any) -> str:
    """Few words for a source's state."""
    if not isinstance(identity, dict):
        return "unknown"
    if (revision := identity.get("revision")) is not None:
        return f"revision {str(revision)[:12]}"
    files = identity.get("files")
    if isinstance(files, list) and all(isinstance(file, dict) for file in files):
        return f"{len(files)} file(s) of {sum(file.get('size') or 0 for file in files):,} bytes"
    return json.dumps(identity, sort_keys=True)[:80]
