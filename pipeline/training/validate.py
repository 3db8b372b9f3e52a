"""Loss and BLEU on the validation set, each rank computing a share and all ranks knowing both."""

import json
from collections.abc import Sequence
from contextlib import nullcontext

import torch
import torch.distributed as dist

from heliograph.model import SmoothedLoss, Transformer, autocast_for
from heliograph.model.functional import Autocast
from heliograph.pipeline.checkpoints.training_state import Validation
from heliograph.pipeline.request.decoding import Search
from heliograph.pipeline.scoring.evaluate import score
from heliograph.pipeline.steps.batches import validation_batches
from heliograph.pipeline.steps.tokenizer import Tokenizer
from heliograph.pipeline.training.plan import TrainingPlan
from heliograph.pipeline.translation.translate import Translator

Pairs = Sequence[tuple[str, str]]


def measure(
    step: int,
    model: Transformer,
    tokenizer: Tokenizer,
    pairs: Pairs,
    plan: TrainingPlan,
) -> Validation:
    """What the model comes to after `step`: the loss on all pairs, the scores of those that the
    plan names. Called by all ranks."""
    settings = plan.validation
    device = next(model.parameters()).device
    autocast = autocast_for(plan.train.precision, device)
    budget = plan.batches.tokens_per_micro_batch
    loss = validation_loss(model, tokenizer, pairs, budget, autocast)
    scored = pairs[: settings.sentences]
    sources, references = ([pair[side] for pair in scored] for side in (0, 1))
    translator = Translator(model, tokenizer, device, plan.train.precision)
    hypotheses = translate_together(translator, sources, plan.search)
    scores = score(hypotheses, references, plan.evaluate.tokenize)
    exact = sum(map(str.__eq__, hypotheses, references))
    return Validation(
        step,
        loss,
        scores.bleu,
        scores.chrf,
        exact_match=100 * exact / len(scored),
        metric=settings.metric,
    )


@torch.no_grad()
def validation_loss(
    model: Transformer,
    tokenizer: Tokenizer,
    pairs: Pairs,
    tokens_per_micro_batch: int,
    autocast: Autocast = nullcontext,
) -> float:
    """Nats per target token over all pairs, without label smoothing."""
    device = next(model.parameters()).device
    unsmoothed = SmoothedLoss(model, 0.0)
    batches = validation_batches(pairs, tokenizer, tokens_per_micro_batch)
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    for batch in batches[dist.get_rank() :: dist.get_world_size()]:
        batch = batch.to(device)
        with autocast():
            loss, tokens = unsmoothed(batch.source, batch.target_in, batch.target_out, batch.padded)
        sums += torch.stack([loss.double(), tokens.double()])
    dist.all_reduce(sums)
    return float(sums[0] / sums[1])


def translate_together(translator: Translator, sources: Sequence[str], search: Search) -> list[str]:
    """All sources' translations, on every rank."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    share = translator.translate(sources[rank::world_size], search)
    translations = [""] * len(sources)
    for other, texts in enumerate(gather_texts(share, translator.device)):
        translations[other::world_size] = texts
    return translations


def gather_texts(texts: Sequence[str], device: torch.device) -> list[list[str]]:
    """Every rank's texts, on every rank. As JSON in tensors: nothing is pickled."""
    payload = torch.frombuffer(bytearray(json.dumps(list(texts)).encode()), dtype=torch.uint8)
    sizes = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, torch.tensor([len(payload)], device=device))
    padded = torch.zeros(max(int(size) for size in sizes), dtype=torch.uint8, device=device)
    padded[: len(payload)] = payload
    gathered = [torch.zeros_like(padded) for _ in sizes]
    dist.all_gather(gathered, padded)
    return [
        json.loads(bytes(data[: int(size)].cpu().numpy()))
        for data, size in zip(gathered, sizes, strict=True)
    ]
