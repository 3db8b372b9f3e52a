"""Training on ranks that are processes of the test's own: what Ray Train has no part in is seen
without the half minute that its workers take to start."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray
import torch.distributed as dist
from ray import cloudpickle
from ray.train.v2._internal.execution.train_fn_utils import LocalTrainFnUtils, set_train_fn_utils
from torch.multiprocessing import start_processes

import heliograph.pipeline.training.loop
from heliograph.pipeline.checkpoints.training_state import TrainingState
from heliograph.pipeline.corpus.mixture import Mixture
from heliograph.pipeline.runs.progress import open_board
from heliograph.pipeline.steps.portions import WindowPlan, portions
from heliograph.pipeline.steps.tokenizer import Tokenizer
from heliograph.pipeline.tracking.sync import sync_job
from heliograph.pipeline.training.loop import training_loop
from heliograph.pipeline.training.plan import TrainingPlan
from heliograph.pipeline.training.worker import Worker
from tests.waiting import LONG, wait_until


class LocalWorker(Worker):
    """One that is told of no node."""

    def is_announced_to_go(self) -> bool:
        return False


def train_locally(
    plan: TrainingPlan,
    ranks: int,
    folder: Path,
    worker: type[LocalWorker] = LocalWorker,
    look: Callable[[], None] = lambda: None,
) -> TrainingState:
    """From the beginning to the plan's end; the state of its newest checkpoint.

    Args:
        folder: an empty one, where the ranks meet.
        look: is called when all have trained and none has ended.

    Raises:
        torch.multiprocessing.ProcessRaisedException: a rank failed; its traceback is the message.
    """
    address, board = ray.get_runtime_context().gcs_address, cloudpickle.dumps(open_board())
    arguments = (plan, ranks, folder, worker, address, board)
    # Interpreters of their own, not forks: two with the same "random" ids (see tests/processes.py)
    # that connect at one moment are ended by Ray: "Seal() called on an object without a reference".
    started = start_processes(_train, arguments, ranks, join=False, start_method="spawn")

    def have_trained() -> bool:
        started.join(timeout=0.05)  # raises what a rank has
        return all((folder / f"trained-{rank}").exists() for rank in range(ranks))

    wait_until(have_trained, seconds=LONG)
    look()
    (folder / "end").touch()
    while not started.join():
        pass
    sync_job(plan.tracking_uri, plan.folder)  # as the driver does
    return plan.checkpoints.newest_state()


def _train(
    rank: int,
    plan: TrainingPlan,
    ranks: int,
    folder: Path,
    worker: type[LocalWorker],
    address: str,
    board: bytes,
) -> None:
    """As a worker of Ray Train: its local mode answers what the loop asks Ray Train for."""
    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    dist.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=ranks)
    shards = {"steps": Shard(plan, rank, ranks)}
    set_train_fn_utils(
        LocalTrainFnUtils("local", shards, ranks, rank, local_rank=rank, local_world_size=ranks)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heliograph.pipeline.training.loop, "Worker", worker)
        training_loop(plan, cloudpickle.loads(board))
    (folder / f"trained-{rank}").touch()
    wait_until((folder / "end").exists)
    dist.destroy_process_group()
    ray.shutdown()


@dataclass
class Shard:
    """A rank's share of all steps from the newest checkpoint on, in order, without end."""

    plan: TrainingPlan
    rank: int
    ranks: int

    def iter_batches(self, **_: Any) -> Iterator[pa.Table]:
        tokenizer, plan = Tokenizer.load(self.plan.tokenizer), self.plan
        mixture, text = Mixture.load(plan.corpora), tokenizer.to_json()
        list_of = WindowPlan(mixture, text, plan.batches, plan.augment, plan.seed, self.ranks)
        begin = plan.checkpoints.newest_state().position
        for number in count(begin.epoch * list_of.windows_in_epoch + begin.window):
            epoch, window = divmod(number, list_of.windows_in_epoch)
            start = begin.step if (epoch, window) == (begin.epoch, begin.window) else 0
            for table in portions(list_of, tokenizer, epoch, window, start, last=False):
                if table["rank"][0].as_py() == self.rank:
                    yield table
