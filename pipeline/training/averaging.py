"""The mean of the last checkpoints (section 6.1 of the paper): of which, and whether it is done."""

from pyarrow.fs import FileType

from heliograph.pipeline.checkpoints.training_state import TrainingState
from heliograph.pipeline.storage.filesystems import filesystem_of
from heliograph.pipeline.storage.listing import write_whole
from heliograph.pipeline.training.plan import TrainingPlan


def steps_to_average(plan: TrainingPlan, state: TrainingState) -> list[int]:
    """Those that an undisturbed job would take; none where they are too few, or not asked for."""
    count = plan.train.average_checkpoints
    found = plan.checkpoints.steps()
    steps = [step for step in found if step == state.step or plan.is_scheduled(step)]
    return steps[-count:] if 0 < count <= len(steps) else []


def is_averaged(plan: TrainingPlan, state: TrainingState) -> bool:
    """Whether the mean was looked at, or is not asked for.

    A driver that was lost meanwhile would else end with the unaveraged model (issue 15, point 8).
    """
    if plan.train.average_checkpoints == 0:
        return True
    files, root = filesystem_of(plan.folder)
    return bool(files.get_file_info(f"{root}/{_mark(state)}").type == FileType.File)


def mark_averaged(plan: TrainingPlan, state: TrainingState) -> None:
    """To be called when the mean is kept where it is better, by one rank."""
    files, root = filesystem_of(plan.folder)
    write_whole(files, f"{root}/{_mark(state)}", b"")


def _mark(state: TrainingState) -> str:
    return f"averaged-{state.step:08d}"
