"""Dropout, attention and matrix products, with forms of their own on a CPU, and the precision.

For speed: on a GPU the fused kernels of torch are the fastest. On a CPU torch draws dropout's coins
one float at a time, which took a sixth of a training step, and leaves its fused attention kernel as
soon as attention weights are dropped. benchmarks/train.py shows what the difference makes.

For repeatability: on a CPU without gradients, as in search, a row's result is the same to the last
bit whatever other rows there are. MKL multiplies four rows at a time, and the one to three rows
left over by kernels that round otherwise, even by where they lie in memory; so none are left over.
On newer CPUs it has yet another kernel for fewer than sixteen rows, so there are never fewer, and
it cuts long sums by the number of rows, so they are cut here.

Shapes: B batch, S source length, T target length, H heads, K head width, D model width.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial

import torch
from torch import Tensor, nn
from torch.nn import functional

ROWS = 4
"""That MKL multiplies at once."""
LEAST_ROWS = 16
"""From so many on, MKL has one kernel on any CPU."""
MOST_TERMS = 512
"""Of a sum: from 1,024 on MKL cuts it as it likes, by the number of rows."""
STRETCH = 64
"""Elements of a vocabulary that are ruled out together."""

Autocast = Callable[[], AbstractContextManager[object]]


def autocast_for(precision: str, device: torch.device) -> Autocast:
    """The context that the model runs in: "float32", "bfloat16", or "auto", which is bfloat16 on
    GPUs that compute with it and float32 elsewhere."""
    automatic = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bfloat16" or (precision == "auto" and automatic):
        return partial(torch.autocast, device.type, dtype=torch.bfloat16)
    return nullcontext


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    visible: Tensor | None = None,
    causal: bool = False,
    dropout: float = 0.0,
) -> Tensor:
    """softmax(Q Kᵀ / √K) V (equation 1), with dropout on the softmax.

    Args:
        query: [B, H, T, K].
        key: [B, H, S, K].
        value: [B, H, S, K].
        visible: bool, [B, 1, 1, S]; False hides a key. Every query must see some key.
        causal: query t sees keys 0 … t only; excludes `visible`.
        dropout: the share of weights set to zero, the rest scaled up.

    Returns:
        [B, H, T, K].
    """
    if query.size(2) < ROWS and _repeatable(query):
        padded = functional.pad(query, (0, 0, 0, ROWS - query.size(2)))
        return attend(padded, key, value, visible, causal)[:, :, : query.size(2)]
    if dropout > 0.0 and _draws_itself(query):
        weights = attention_weights(query, key, visible, causal)
        return dropped(weights, dropout) @ value
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=visible, dropout_p=dropout, is_causal=causal
    )


class Linear(nn.Linear):
    """A linear layer by `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b: x [..., D], weight [E, D] → [..., E]."""
    if not x.numel() or not _repeatable(x):
        return functional.linear(x, weight, bias)
    rows = x.numel() // x.size(-1)
    flat = x.reshape(rows, -1)
    if missing := max(-rows % ROWS, _least_rows() - rows):
        flat = functional.pad(flat, (0, 0, 0, missing))
    if flat.size(-1) <= MOST_TERMS:
        return functional.linear(flat, weight, bias)[:rows].view(*x.shape[:-1], -1)
    product = functional.linear(flat[:, :MOST_TERMS], weight[:, :MOST_TERMS], bias)
    for first in range(MOST_TERMS, flat.size(-1), MOST_TERMS):
        part = slice(first, first + MOST_TERMS)
        product = product + functional.linear(flat[:, part], weight[:, part])
    return product[:rows].view(*x.shape[:-1], -1)


@cache
def _least_rows() -> int:
    """How few rows this CPU multiplies as it does many: ROWS, or `LEAST_ROWS` on newer ones, where
    that makes the step for a single sentence slower."""
    draw = torch.Generator().manual_seed(1)
    x, weight = (torch.randn(LEAST_ROWS, MOST_TERMS, generator=draw) for _ in range(2))
    with torch.autocast("cpu", enabled=False):  # the answer is kept, and must not be bfloat16's
        many = functional.linear(x, weight)
        few = [functional.linear(x[:rows], weight) for rows in range(ROWS, LEAST_ROWS, ROWS)]
    return ROWS if all(torch.equal(each, many[: len(each)]) for each in few) else LEAST_ROWS


def likeliest(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The largest `count` of x [..., V] and where they are, as by `topk`, [..., count] each.

    On a CPU they are looked for only in the stretches with the largest maxima, which hold them all;
    over a large vocabulary that takes a third of the time.
    """
    stretches, rest = divmod(x.size(-1), STRETCH)
    if x.device.type != "cpu" or stretches < 4 * count:
        values, places = x.topk(count)
        return values, places
    cut = x[..., : x.size(-1) - rest].reshape(*x.shape[:-1], stretches, STRETCH)
    chosen = cut.amax(-1).topk(count).indices[..., None]
    places = (chosen * STRETCH + torch.arange(STRETCH)).flatten(-2)
    if rest:
        tail = torch.arange(x.size(-1) - rest, x.size(-1))
        places = torch.cat([places, tail.expand(*places.shape[:-1], -1)], dim=-1)
    values, which = x.gather(-1, places).topk(count)
    return values, places.gather(-1, which)


def _repeatable(x: Tensor) -> bool:
    return x.device.type == "cpu" and not torch.is_grad_enabled()


def _draws_itself(x: Tensor) -> bool:
    """Whether dropout's coins are drawn here; compiled code draws them as fast as it computes."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def visible_tokens(tokens: Tensor, pad_id: int, padded: bool | None = None) -> Tensor | None:
    """What `attend` may see of padded ids [B, S]: [B, 1, 1, S], False at padding.

    A row's first token is always visible, so that a row of nothing but padding stays finite. None:
    there is no padding, and no mask to apply, without which a GPU has a faster kernel.

    Args:
        padded: whether there is padding, where the caller knows. None: a CPU looks; on a GPU
            looking would wait for it, and there is a mask.
    """
    if padded is False:
        return None
    visible = tokens != pad_id
    if padded is None and tokens.device.type == "cpu" and bool(visible.all()):
        return None
    visible[:, 0] = True
    return visible[:, None, None, :]


def attention_weights(
    query: Tensor, key: Tensor, visible: Tensor | None = None, causal: bool = False
) -> Tensor:
    """softmax(Q Kᵀ / √K) itself, without dropout, as in `attend`: [B, H, T, S]."""
    scores = query @ key.transpose(-2, -1) * query.size(-1) ** -0.5
    if causal:
        visible = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if visible is not None:
        scores = scores.masked_fill(~visible, -torch.inf)
    return torch.softmax(scores, dim=-1)


def dropped(x: Tensor, rate: float) -> Tensor:
    """Dropout: each element is zero with probability `rate`, else divided by 1 - `rate`."""
    if rate == 0.0 or not _draws_itself(x):
        return functional.dropout(x, rate)
    return x * dropout_mask(x, rate)


def add_dropped(residual: Tensor, update: Tensor, rate: float) -> Tensor:
    """residual + dropout(update): section 5.4."""
    if rate == 0.0 or not _draws_itself(update):
        return residual + functional.dropout(update, rate)
    return torch.addcmul(residual, update, dropout_mask(update, rate))


def dropout_mask(x: Tensor, rate: float) -> Tensor:
    """Like x: 0 with probability `rate`, rounded to a multiple of 2⁻¹⁶, else what keeps the mean.

    Each 64-bit random number serves four elements, which is seven times as fast as `bernoulli_`.
    """
    level = min(round(rate * 2**16), 2**16 - 1)
    random = torch.empty(math.ceil(x.numel() / 4), dtype=torch.int64).random_(-(2**63), None)
    random = random.view(torch.int16)[: x.numel()].view(x.shape)
    kept = torch.ge(
        random, level - 2**15, out=torch.empty_like(x, memory_format=torch.contiguous_format)
    )
    return kept.mul_(2**16 / (2**16 - level))
