"""What lies on a storage, which of it jobs use, and the removal of what is no longer wanted.

    storage/corpora/KEY  storage/tokens/KEY  storage/tokenizers/KEY  storage/jobs/JOB
    storage/readings/ATTEMPT

Everything but a job is made again from its source when it is needed; a job's folder holds its
checkpoints, and nothing that is registered needs it.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pyarrow.fs import FileInfo, FileSystem, FileType

from heliograph.pipeline.corpus.readings import ABANDONED, READINGS
from heliograph.pipeline.job.data import DATA
from heliograph.pipeline.request.errors import RequestError, did_you_mean
from heliograph.pipeline.storage.filesystems import filesystem_of
from heliograph.pipeline.storage.listing import list_folder

KINDS = {
    READINGS: "",
    "corpora": "manifest.json",
    "tokens": "manifest.json",
    "tokenizers": "tokenizer.json",
}
"""And the file that is written last; what a start has read is never whole."""
JOBS = "jobs"


@dataclass(frozen=True)
class Stored:
    """A folder of the storage.

    Attributes:
        name: KIND/KEY.
        touched: when the newest of its files was written, in seconds since 1970.
        whole: False: it is being written, or whoever wrote it died.
        used_by: the jobs that were begun with it.
        made_of: for people, what it is.
    """

    name: str
    bytes: int
    touched: float
    whole: bool
    used_by: tuple[str, ...]
    made_of: str

    @property
    def unused(self) -> bool:
        """No job needs it, and nobody is writing it."""
        old = datetime.now(UTC).timestamp() - self.touched > ABANDONED.total_seconds()
        return not self.name.startswith(JOBS) and not self.used_by and (self.whole or old)


def list_stored(storage: str) -> list[Stored]:
    """All of a storage, each kind's oldest first."""
    files, root = filesystem_of(storage)
    users: dict[str, list[str]] = {}
    jobs = sorted(each.base_name for each in _folders(files, f"{root}/{JOBS}"))
    for job in jobs:
        for name in _uses(files, f"{root}/{JOBS}/{job}"):
            users.setdefault(name, []).append(job)
    return [
        _look(files, folder, kind, tuple(users.get(f"{kind}/{folder.base_name}", ())))
        for kind in (*KINDS, JOBS)
        for folder in sorted(_folders(files, f"{root}/{kind}"), key=lambda each: each.base_name)
    ]


def remove_stored(storage: str, names: Sequence[str]) -> list[Stored]:
    """Delete folders by their names; `unused` names all that no job uses.

    Returns:
        What was deleted.

    Raises:
        RequestError: there is no such folder, or a job uses it that is not to be deleted, too.
            Nothing is deleted then.
    """
    stored = {each.name: each for each in list_stored(storage)}
    wanted = dict.fromkeys(name.strip("/") for name in names if name != "unused")
    if "unused" in names:
        wanted |= dict.fromkeys(name for name, each in stored.items() if each.unused)
    for name in wanted:
        if name not in stored:
            hint = did_you_mean(name, stored) if stored else "there is nothing"
            raise RequestError(f"--remove {name!r}: no such folder on {storage!r}; {hint}")
        if left := [job for job in stored[name].used_by if f"{JOBS}/{job}" not in wanted]:
            raise RequestError(
                f"--remove {name!r}: begun with it, and lost without it: {', '.join(left)}; "
                f"remove {', '.join(f'{JOBS}/{job}' for job in left)} as well, or neither"
            )
    files, root = filesystem_of(storage)
    for name in sorted(wanted, key=lambda name: not name.startswith(JOBS)):  # users first
        files.delete_dir(f"{root}/{name}")
    return [stored[name] for name in wanted]


def _folders(files: FileSystem, path: str) -> Iterator[FileInfo]:
    for each in list_folder(files, path):
        if each.type == FileType.Directory:
            yield each


def _uses(files: FileSystem, folder: str) -> list[str]:
    try:
        with files.open_input_stream(f"{folder}/{DATA}") as file:
            return list(json.loads(file.read())["folders"])
    except FileNotFoundError:
        return []


def _look(files: FileSystem, folder: FileInfo, kind: str, used_by: tuple[str, ...]) -> Stored:
    inside = list_folder(files, folder.path, recursive=True)
    found = {each.path: each for each in inside if each.type == FileType.File}
    last = KINDS.get(kind)
    touched = [each.mtime.timestamp() for each in found.values() if each.mtime is not None]
    return Stored(
        name=f"{kind}/{folder.base_name}",
        bytes=sum(each.size or 0 for each in found.values()),
        touched=max(touched, default=0.0),
        whole=last is None or f"{folder.path}/{last}" in found,
        used_by=used_by,
        made_of=_made_of(files, f"{folder.path}/{last}") if kind == "corpora" else "",
    )


def _made_of(files: FileSystem, manifest: str) -> str:
    try:
        with files.open_input_stream(manifest) as file:
            content = json.loads(file.read())
    except FileNotFoundError:
        return ""
    return f"{content['rows']:,} pairs of {content['identity'].get('location', 'files')}"
