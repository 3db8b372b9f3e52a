"""A process with a file system of 8 MB of its own, which fills up and turns read-only.

Run by `in_small_disk`, as are others; prints as JSON what happened there.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from heliograph.pipeline.checkpoints.background import BackgroundSaver
from heliograph.pipeline.checkpoints.checkpoint_store import CheckpointStore, StorageFull
from heliograph.pipeline.request.errors import RequestError
from tests.pipeline.saving import writer
from tests.waiting import DEADLINE

HALF_A_DISK = 500_000
"""Numbers: 4 MB."""


def in_small_disk(
    folder: Path, module: str = __name__, timeout: float = DEADLINE
) -> dict[str, Any]:
    """What a module prints, run where `folder` is such a file system."""
    mount = f"mount -t tmpfs -o size=8m none '{folder}'"
    script = f"{mount} && echo mounted >&2 && exec '{sys.executable}' -m {module} '{folder}'"
    tried = []
    # As root, with user namespaces, or where the user may become root: whichever is allowed.
    for prefix in ([], ["sudo", "-n"], ["unshare", "--map-root-user"]):
        command = [*prefix, "unshare", "--mount", "sh", "-c", script]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
        except FileNotFoundError as error:  # there is no sudo here
            tried.append(str(error))
            continue
        if done.returncode == 0:
            return dict(json.loads(done.stdout.splitlines()[-1]))
        tried.append(done.stderr)
    if any("mounted" in each for each in tried):
        raise AssertionError("\n".join(tried))
    pytest.skip(f"a small disk needs the right to mount a tmpfs: {tried}")


def main(folder: Path) -> dict[str, Any]:
    """Save beside other data, fill the disk, free it, make it read-only."""
    result: dict[str, Any] = {}
    checkpoints, other = folder / "checkpoints", folder / "other data"
    store = CheckpointStore(str(checkpoints))
    saver = BackgroundSaver(store, keep_newest=3, keep_best=0)
    saver.save(1, lambda: writer(1, numbers=HALF_A_DISK))
    saver.finish()
    other.write_bytes(b"1" * 2_000_000)
    saver = BackgroundSaver(store, keep_newest=3, keep_best=0)
    saver.save(2, lambda: writer(2, numbers=HALF_A_DISK))
    try:
        saver.finish()
    except StorageFull as error:
        result["full"] = str(error)
    result["left by it"] = sorted(path.name for path in checkpoints.iterdir())
    other.unlink()
    store.save(2, writer(2, numbers=HALF_A_DISK))
    result["saved once there was room"] = store.newest().step
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    try:
        store.check_writable()
    except RequestError as error:
        result["read-only"] = str(error)
    return result


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
