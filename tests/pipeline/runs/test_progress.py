"""What is said while a job runs reaches its terminal."""

import pytest
import ray

from heliograph.pipeline.runs.progress import (
    Progress,
    ProgressBoard,
    ProgressLine,
    StopWish,
    open_board,
)
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_what_is_said_last_is_shown_too(capfd: pytest.CaptureFixture[str]) -> None:
    """Off a terminal nobody looks for two seconds."""
    board = open_board()
    with ProgressLine(board):
        ray.get(board.post.remote(Progress(7, 0.5, 2.25, None, 1234.0)))
        ray.get(board.say.remote("stopping with a checkpoint"))
    lines = capfd.readouterr().err.splitlines()
    assert lines == [
        "stopping with a checkpoint",
        " 50% · step 7 · loss 2.250 · BLEU - · 1,234 tokens/s",
    ]


def test_the_wish_to_stop_comes_by_itself() -> None:
    board = open_board()
    wish = StopWish(board)
    assert not wish.is_known()
    board.want_stop.remote()
    wait_until(wish.is_known)


def test_a_board_that_was_away_is_asked_again() -> None:
    board = ray.remote(num_cpus=0, max_restarts=1)(ProgressBoard).remote()
    wish = StopWish(board)
    ray.get(board.phase.remote())
    ray.kill(board, no_restart=False)
    assert not wish.is_known()
    wait_until(lambda: board.want_stop.remote() and wish.is_known())
