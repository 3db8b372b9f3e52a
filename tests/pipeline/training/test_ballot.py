"""All ranks learn the same answers, one step after any of them gave one."""

from pathlib import Path

import torch.distributed as dist

from heliograph.pipeline.training.ballot import Ballot
from tests import processes

STEPS = 6


def vote(rank: int, folder: str) -> None:
    """Rank 1 says yes to the first question at step 2, rank 0 to the second at step 4."""
    dist.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    decisions: list[list[bool]] = []
    ballot = Ballot(
        [lambda: (rank, len(decisions)) == (1, 2), lambda: (rank, len(decisions)) == (0, 4)]
    )
    while len(decisions) < STEPS:
        decisions.append(ballot.decide())
    (Path(folder) / f"{rank}.txt").write_text(repr(decisions))
    dist.barrier()
    dist.destroy_process_group()


def test_every_rank_acts_on_the_same_step(tmp_path: Path) -> None:
    processes.run_ranks(vote, (str(tmp_path),), 2)
    expected = [[step == 3, step == 5] for step in range(STEPS)]
    for rank in range(2):
        assert (tmp_path / f"{rank}.txt").read_text() == repr(expected)
