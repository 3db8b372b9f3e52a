"""The Transformer as Hugging Face's MarianMT, for whatever runs models of that library.

MarianMT is the post-norm architecture with shared embeddings, too, but its positions have all sines
before the cosines where ours alternate. Which of a hidden vector's elements is which does not
matter to any layer: so every matrix and norm that reads or writes hidden vectors gets their
elements in MarianMT's order, and the function is the same. What is inside heads and feed-forward
networks stays as it is.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from heliograph.model import Transformer
from heliograph.model.attention import CrossAttention, SelfAttention
from heliograph.model.blocks import DecoderLayer, EncoderLayer, FeedForward, Residual
from heliograph.pipeline.request.decoding import Search
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.steps.tokenizer import END, PAD, SPECIAL_TOKENS, START, Tokenizer

if TYPE_CHECKING:  # an optional package, loaded by those functions that need it
    from transformers import MarianConfig, MarianMTModel

POSITIONS = 2048
"""The longest source and translation, end token included."""


def check_marian(model: Transformer) -> None:
    """Raises RequestError when there is no MarianMT like `model`, or its library is missing."""
    if model.config.norm != "post":
        raise RequestError(
            f"a model with norm {model.config.norm!r} has no MarianMT form, which is 'post'; the "
            "ctranslate2 formats take both"
        )
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise RequestError(
            "format 'marian' needs the package transformers: pip install 'heliograph[marian]'"
        ) from error


def write_marian(model: Transformer, tokenizer: Tokenizer, settings: Search, folder: Path) -> None:
    """Write what `MarianMTModel.from_pretrained` and `AutoTokenizer.from_pretrained` read.

    Args:
        settings: become the defaults of its `generate`, which knows no `length_offset`.
    """
    to_marian(model, settings).save_pretrained(folder)
    _write_tokenizer(tokenizer, folder)


def to_marian(model: Transformer, settings: Search) -> "MarianMTModel":
    """The same function as a MarianMT, in evaluation mode."""
    from transformers import MarianMTModel

    marian = MarianMTModel(_config(model)).eval()
    weights = dict(_weights(model))
    missing = marian.load_state_dict(weights, strict=False).missing_keys
    tied_or_fixed = ("embed_tokens", "embed_positions", "lm_head", "final_logits_bias")
    assert all(any(part in name for part in tied_or_fixed) for name in missing), missing
    marian.tie_weights()
    generation = marian.generation_config
    generation.num_beams, generation.length_penalty = settings.beam, settings.length_penalty
    generation.max_length = POSITIONS
    # No translation of ours contains them.
    generation.suppress_tokens = [PAD, START]
    return cast("MarianMTModel", marian)


def load_marian(folder: Path) -> "MarianMTModel":
    """What `write_marian` wrote, in evaluation mode."""
    from transformers import MarianMTModel

    return cast("MarianMTModel", MarianMTModel.from_pretrained(folder).eval())


def largest_difference(
    model: Transformer,
    marian: "MarianMTModel",
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
    together: int = 16,
) -> float:
    """Between the logits of both models, at any position of these pairs of token ids, so many pairs
    at a time."""
    largest = 0.0
    for start in range(0, len(pairs), together):
        batch = pairs[start : start + together]
        source = _padded([[*source, END] for source, _ in batch])
        target = _padded([[START, *target] for _, target in batch])
        with torch.inference_mode():
            ours = model(source, target)
            theirs = marian(
                input_ids=source, attention_mask=source != PAD, decoder_input_ids=target
            ).logits
        largest = max(largest, float((ours - theirs)[target != PAD].abs().max()))
    return largest


def _padded(rows: list[list[int]]) -> Tensor:
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=PAD)


def _config(model: Transformer) -> "MarianConfig":
    from transformers import MarianConfig

    config = model.config
    return MarianConfig(
        vocab_size=config.vocabulary_size,
        max_position_embeddings=POSITIONS,
        d_model=config.width,
        encoder_layers=config.encoder_layers,
        decoder_layers=config.decoder_layers,
        encoder_attention_heads=config.heads,
        decoder_attention_heads=config.heads,
        encoder_ffn_dim=config.feed_forward,
        decoder_ffn_dim=config.feed_forward,
        activation_function="relu",
        dropout=config.dropout,
        attention_dropout=config.attention_dropout,
        scale_embedding=True,
        share_encoder_decoder_embeddings=True,
        pad_token_id=PAD,
        bos_token_id=START,
        decoder_start_token_id=START,
        eos_token_id=END,
        forced_eos_token_id=END,
    )


def _weights(model: Transformer) -> Iterator[tuple[str, Tensor]]:
    """MarianMT's names, and our weights in its order."""
    width = model.config.width
    order = torch.cat([torch.arange(0, width, 2), torch.arange(1, width, 2)])
    yield "model.shared.weight", model.embedding.weight.detach()[:, order]
    for number, layer in enumerate(model.encoder):
        encoder_layer = cast(EncoderLayer, layer)
        at = f"model.encoder.layers.{number}"
        yield from _self_attention(f"{at}.self_attn", encoder_layer.self_attention, order)
        yield from _norm(f"{at}.self_attn_layer_norm", encoder_layer.around_self_attention, order)
        yield from _feed_forward(at, encoder_layer.feed_forward, order)
        yield from _norm(f"{at}.final_layer_norm", encoder_layer.around_feed_forward, order)
    for number, layer in enumerate(model.decoder):
        decoder_layer = cast(DecoderLayer, layer)
        at = f"model.decoder.layers.{number}"
        yield from _self_attention(f"{at}.self_attn", decoder_layer.self_attention, order)
        yield from _norm(f"{at}.self_attn_layer_norm", decoder_layer.around_self_attention, order)
        yield from _cross_attention(f"{at}.encoder_attn", decoder_layer.cross_attention, order)
        yield from _norm(
            f"{at}.encoder_attn_layer_norm", decoder_layer.around_cross_attention, order
        )
        yield from _feed_forward(at, decoder_layer.feed_forward, order)
        yield from _norm(f"{at}.final_layer_norm", decoder_layer.around_feed_forward, order)


def _self_attention(at: str, module: SelfAttention, order: Tensor) -> Iterator[tuple[str, Tensor]]:
    yield from _reading(at, ("q_proj", "k_proj", "v_proj"), module.query_key_value, order)
    yield from _writing(f"{at}.out_proj", module.output, order)


def _cross_attention(
    at: str, module: CrossAttention, order: Tensor
) -> Iterator[tuple[str, Tensor]]:
    yield from _reading(at, ("q_proj",), module.query, order)
    yield from _reading(at, ("k_proj", "v_proj"), module.key_value, order)
    yield from _writing(f"{at}.out_proj", module.output, order)


def _feed_forward(at: str, module: FeedForward, order: Tensor) -> Iterator[tuple[str, Tensor]]:
    yield from _reading(at, ("fc1",), module.inner, order)
    yield from _writing(f"{at}.fc2", module.outer, order)


def _reading(
    at: str, names: tuple[str, ...], module: nn.Linear, order: Tensor
) -> Iterator[tuple[str, Tensor]]:
    """A projection of hidden vectors, which is several of MarianMT's."""
    weights = module.weight.detach()[:, order].chunk(len(names))
    for name, weight, bias in zip(
        names, weights, module.bias.detach().chunk(len(names)), strict=True
    ):
        yield f"{at}.{name}.weight", weight
        yield f"{at}.{name}.bias", bias


def _writing(at: str, module: nn.Linear, order: Tensor) -> Iterator[tuple[str, Tensor]]:
    """A projection to hidden vectors."""
    yield f"{at}.weight", module.weight.detach()[order]
    yield f"{at}.bias", module.bias.detach()[order]


def _norm(at: str, around: Residual, order: Tensor) -> Iterator[tuple[str, Tensor]]:
    yield from _writing(at, cast(nn.Linear, around.norm), order)  # a weight and a bias, too


def _write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Ours, with the end token after each source, which ours leaves to the batch."""
    from transformers import PreTrainedTokenizerFast

    pad, start, end = SPECIAL_TOKENS
    parts = json.loads(tokenizer.to_json())
    ended = [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": end, "type_id": 0}}]
    parts["post_processor"] = {
        "type": "TemplateProcessing",
        "single": ended,
        "pair": [*ended, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {end: {"id": end, "ids": [END], "tokens": [end]}},
    }
    plain = folder / "tokenizer.json"
    plain.write_text(json.dumps(parts, ensure_ascii=False), encoding="utf-8")
    PreTrainedTokenizerFast(
        tokenizer_file=str(plain),
        pad_token=pad,
        bos_token=start,
        eos_token=end,
        model_max_length=POSITIONS,
        split_special_tokens=True,  # "<s>" in a text is text
        clean_up_tokenization_spaces=False,
    ).save_pretrained(folder)
