"""What a node says of itself, asked by `doctor`: run there as a Ray task, or anywhere."""

import os
import platform
import shutil
import tempfile
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import ray

from heliograph.pipeline.doctor.server import Probe, write_artifact
from heliograph.pipeline.request.errors import one_line
from heliograph.pipeline.storage.filesystems import filesystem_of

PACKAGES = ("ray", "torch", "mlflow", "pyarrow", "numpy", "tokenizers")
SHARED_MEMORY = "/dev/shm"


@dataclass(frozen=True)
class Room:
    """Of a file system, in bytes."""

    total: int
    free: int

    @classmethod
    def of(cls, folder: str) -> "Room | None":
        """None: it is not there."""
        try:
            usage = shutil.disk_usage(folder)
        except OSError:
            return None
        return cls(usage.total, usage.free)


@dataclass(frozen=True)
class Question:
    """What a node is to try.

    Attributes:
        storage: folder or URL in which each node leaves a file under its name; None: no storage.
        probe: where it is to leave an artifact; None: nowhere.
    """

    storage: str | None = None
    probe: Probe | None = None


@dataclass(frozen=True)
class NodeReport:
    """What was found on one node; an error is None where there was none."""

    name: str
    versions: dict[str, str] = field(default_factory=dict)
    cpus: int = 0
    """That this process may use."""
    gpus: int = 0
    """Devices, whether Ray knows them or not."""
    shared_memory: Room | None = None
    temporary: Room | None = None
    """Where Ray keeps logs and spills what its memory does not hold."""
    token_mode: str = ""
    storage_error: str | None = None
    storage_room: Room | None = None
    """None: not a folder."""
    tracking_error: str | None = None


def look_around(question: Question, name: str, temporary: str | None = None) -> NodeReport:
    """What there is on this node. Never raises: what fails is what is asked for.

    Args:
        temporary: the folder of Ray's session; None: where Ray puts it by default.
    """
    storage, probe = question.storage, question.probe
    local = storage is not None and "://" not in storage
    return NodeReport(
        name=name,
        versions={"python": platform.python_version()} | {each: version(each) for each in PACKAGES},
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
        gpus=len(list(Path("/dev").glob("nvidia[0-9]*"))),
        shared_memory=Room.of(SHARED_MEMORY),
        temporary=Room.of(temporary or tempfile.gettempdir()),
        token_mode=os.environ.get("RAY_AUTH_MODE", ""),
        storage_error=None if storage is None else _write(storage, name),
        storage_room=Room.of(storage) if local and storage is not None else None,
        tracking_error=None if probe is None else write_artifact(probe, f"{name}.txt"),
    )


def look_around_here(question: Question, name: str) -> NodeReport:
    """`look_around`, in a Ray task."""
    return look_around(
        question, name, ray._private.worker.global_worker.node.get_session_dir_path()
    )


def _write(storage: str, name: str) -> str | None:
    """Leave a file in the storage and read it back; what went wrong."""
    try:
        files, root = filesystem_of(storage)
        files.create_dir(root, recursive=True)
        with files.open_output_stream(f"{root}/{name}") as file:
            file.write(name.encode())
        with files.open_input_stream(f"{root}/{name}") as file:
            if file.read().decode() != name:
                return "what was written was read back changed"
    except Exception as error:  # each file system's client has exceptions of its own
        return one_line(error)
    return None
