"""`heliograph storage PLACE`: what lies there and which jobs use it; `--remove` deletes of it."""

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from heliograph.jobs.command import Answer, command, run_alone

if TYPE_CHECKING:
    from heliograph.pipeline.job.stored import Stored

Place = Annotated[
    str,
    typer.Argument(metavar="PLACE", help="A recipe's `storage`: a folder, or a URL."),
]
Remove = Annotated[
    list[str] | None,
    typer.Option(
        "--remove",
        metavar="NAME",
        help="As it is listed; or `unused`, for all that no job was begun with. May be repeated.",
        show_default=False,
    ),
]


@command
def storage(place: Place, remove: Remove = None) -> Answer:
    """List corpora, tokens, tokenizers and jobs on a storage, or remove some of them.

    All but jobs is made again when it is needed; registered models need none of it.
    """
    from heliograph.pipeline.job.stored import list_stored, remove_stored
    from heliograph.pipeline.storage.filesystems import absolute

    place = absolute(place)
    removed = remove_stored(place, remove) if remove else []
    left = list_stored(place)
    lines = [f"removed {_line(each)}" for each in removed] or [_line(each) for each in left]
    total = sum(each.bytes for each in left)
    lines.append(f"{len(left)} folders, {_size(total)} in {place}")
    result = {"removed": [asdict(each) for each in removed], "left": [asdict(e) for e in left]}
    return Answer("\n".join(lines), result)


def _line(stored: "Stored") -> str:
    day = datetime.fromtimestamp(stored.touched).astimezone().date().isoformat()
    state = "" if stored.whole else "  half written"
    users = f"  used by {', '.join(stored.used_by)}" if stored.used_by else ""
    made_of = f"  {stored.made_of}" if stored.made_of else ""
    return f"{stored.name}  {_size(stored.bytes)}  {day}{state}{made_of}{users}"


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


if __name__ == "__main__":
    run_alone(storage)
