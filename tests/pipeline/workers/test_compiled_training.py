"""A job whose layers are compiled (`train.compile`, issue 17, 7)."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch.distributed as dist
from torch.multiprocessing import ProcessRaisedException

from heliograph.pipeline.checkpoints.model_folder import load_model
from heliograph.pipeline.corpus.corpus import Corpus
from heliograph.pipeline.request import recipe
from heliograph.pipeline.steps.tokenizer import Tokenizer
from heliograph.pipeline.tracking.server import connect
from heliograph.pipeline.training.plan import TrainingPlan
from heliograph.pipeline.training.validate import validation_loss
from tests.local_ranks import train_locally
from tests.small_plan import job

pytestmark = pytest.mark.usefixtures("ray_cluster")


def compiled(small_training: TrainingPlan, name: str, steps: int) -> TrainingPlan:
    return replace(
        job(small_training, name),
        train=recipe.Train(steps=steps, warmup_steps=2, checkpoint_steps=3, compile=True),
        validation=recipe.Validation(every_steps=6, sentences=4),
    )


def losses(plan: TrainingPlan) -> list[float]:
    return [
        metric.value
        for metric in connect(plan.tracking_uri).get_metric_history(plan.run_id, "train/loss")
    ]


@pytest.mark.faults
def test_it_goes_on_where_it_was_and_is_judged_as_it_will_be_used(
    small_training: TrainingPlan, tmp_path: Path
) -> None:
    """What is dropped is that of the step; bits are not, for torch compiles what it sees first."""
    whole, halves = (compiled(small_training, name, 6) for name in ("compiled", "in halves"))
    for folder in ("whole", "first", "second"):
        (tmp_path / folder).mkdir()
    state = train_locally(whole, 1, tmp_path / "whole")
    half = replace(halves, train=halves.train.model_copy(update={"steps": 3}))
    assert train_locally(half, 1, tmp_path / "first").step == 3
    assert train_locally(halves, 1, tmp_path / "second").step == 6
    assert len(losses(whole)) == 6
    assert losses(halves) == pytest.approx(losses(whole), rel=1e-5)

    with whole.checkpoints.open_newest() as found:
        assert found.folder is not None
        model, _ = load_model(found.folder)
    pairs = Corpus.load(whole.validation_corpus).head(None)
    dist.init_process_group("gloo", f"file://{tmp_path}/meeting", rank=0, world_size=1)
    loss = validation_loss(model.eval(), Tokenizer.load(whole.tokenizer), pairs, 256)
    dist.destroy_process_group()
    assert state.latest is not None
    assert state.latest.loss == loss


@pytest.mark.faults
def test_without_a_compiler_it_says_so_and_ends(
    small_training: TrainingPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "ranks").mkdir()
    with pytest.raises(ProcessRaisedException, match=r"JobStopped.*Set train.compile to false"):
        train_locally(compiled(small_training, "uncompiled", 1), 1, tmp_path / "ranks")
