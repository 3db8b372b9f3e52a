"""Which commit the code is of, also where it was sent to without its repository."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

SENT = "HELIOGRAPH_COMMIT"
"""The variable that says it to a job on a cluster."""
MODIFIED = "+modified"


@dataclass(frozen=True)
class Checkout:
    commit: str
    modified: bool
    """Whether the code differs from it."""

    def __str__(self) -> str:
        return self.commit + MODIFIED * self.modified


def find_checkout(folder: Path) -> Checkout | None:
    """Of the code in the folder; None: nobody knows."""
    git = ["git", "-C", str(folder)]
    try:
        commit = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True, stderr=-3).strip()
        changes = subprocess.check_output([*git, "status", "--porcelain"], text=True, stderr=-3)
        return Checkout(commit, bool(changes))
    except (OSError, subprocess.CalledProcessError):
        sent = os.environ.get(SENT, "")
        return Checkout(sent.removesuffix(MODIFIED), sent.endswith(MODIFIED)) if sent else None
