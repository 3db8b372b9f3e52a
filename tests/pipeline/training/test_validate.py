"""What validation measures while training runs is what the finished model is measured by."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from heliograph.pipeline.request import recipe
from heliograph.pipeline.scoring.evaluate import evaluate
from heliograph.pipeline.training.validate import measure
from heliograph.pipeline.translation.translate import Translator
from tests.pipeline.conftest import PAIRS, MakeModel
from tests.pipeline.plans import plan_without_data


@pytest.fixture(autouse=True)
def alone(tmp_path: Path) -> Iterator[None]:
    """The one rank that there is."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_validation_and_the_final_score_use_one_decoder(
    make_model: MakeModel, tmp_path: Path
) -> None:
    """Validation took the default length factor, and so another checkpoint (issue 17, point 2)."""
    translator = Translator.load(make_model(1), "cpu")
    settings = recipe.Evaluate(
        beam=2, max_length_factor=0.5, max_length_extra=2, tokens_per_batch=64, tokenize="char"
    )
    plan = plan_without_data(tmp_path, evaluate=settings, validation=recipe.Validation(beam=2))
    measured = measure(7, translator.model, translator.tokenizer, PAIRS, plan)
    final = evaluate(translator, PAIRS, settings)
    assert 0 < final.bleu < 100  # shortened, which the defaults would not have done
    assert (measured.bleu, measured.chrf) == (final.bleu, final.chrf)


def test_it_computes_as_training_does(make_model: MakeModel, tmp_path: Path) -> None:
    """In bfloat16 where that trains, which on GPUs is several times as fast (issue 17, 7)."""
    translator, seen = Translator.load(make_model(1), "cpu"), set()
    translator.model.encoder[0].feed_forward.inner.register_forward_hook(
        lambda _, __, output: seen.add(output.dtype)
    )
    losses = {}
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        plan = plan_without_data(tmp_path, train=recipe.Train(steps=1, precision=precision))
        seen.clear()
        measured = measure(1, translator.model, translator.tokenizer, PAIRS, plan)
        losses[precision] = measured.loss
        assert seen == {dtype}
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.1)
    assert losses["bfloat16"] != losses["float32"]


def test_of_the_decoder_s_settings_only_the_beam_is_validation_s_own(tmp_path: Path) -> None:
    settings = recipe.Evaluate(beam=5, length_penalty=0.6, no_repeat_ngram=3)
    plan = plan_without_data(tmp_path, evaluate=settings)
    assert plan.search.model_dump() == settings.search_settings() | {"beam": 1}
