"""The Transformer in CTranslate2's form: the same weights, and as exactly the same function as that
library allows.

Two things are not what CTranslate2 would take for granted. Its own sinusoids count positions from 1
and put all sines before the cosines, so ours are given to it as a table. And each layer norm's
epsilon is said, because its default is another library's.
"""

from pathlib import Path
from typing import cast

import numpy as np
from ctranslate2.specs import attention_spec, common_spec, transformer_spec
from numpy.typing import NDArray
from torch import Tensor, nn

from heliograph.model import Transformer
from heliograph.model.attention import CrossAttention, SelfAttention
from heliograph.model.blocks import DecoderLayer, EncoderLayer, FeedForward
from heliograph.model.transformer import sinusoid
from heliograph.pipeline.steps.tokenizer import END, START, Tokenizer
from heliograph.pipeline.translation.exports import Precision

POSITIONS = 2048
"""The longest source and translation, end token included, that the table has positions for."""


def convert(model: Transformer, tokenizer: Tokenizer, folder: Path, precision: Precision) -> None:
    """Write model.bin, config.json and shared_vocabulary.json into an empty folder.

    Args:
        precision: of the matrices. int8 scales each row of a matrix to 8 bits, and computes with
            what comes in rounded likewise; the rest stays float32.
    """
    config = model.config
    spec = transformer_spec.TransformerSpec.from_config(
        (config.encoder_layers, config.decoder_layers),
        config.heads,
        pre_norm=config.norm == "pre",
        activation=common_spec.Activation.RELU,
    )
    _embeddings(model, spec)
    for encoder_layer, into in zip(model.encoder, spec.encoder.layer, strict=True):
        _encoder_layer(cast(EncoderLayer, encoder_layer), into)
    for decoder_layer, into in zip(model.decoder, spec.decoder.layer, strict=True):
        _decoder_layer(cast(DecoderLayer, decoder_layer), into)
    if config.norm == "pre":
        _norm(model.encoder_norm, spec.encoder.layer_norm)
        _norm(model.decoder_norm, spec.decoder.layer_norm)
    _vocabulary(tokenizer.vocabulary, spec)
    (spec.config.layer_norm_epsilon,) = {
        part.eps for part in model.modules() if isinstance(part, nn.LayerNorm)
    }
    spec.validate()
    spec.optimize(precision)
    spec.save(str(folder))


def _embeddings(model: Transformer, into: transformer_spec.TransformerSpec) -> None:
    """One matrix for source, target and output, which CTranslate2 then keeps once."""
    embeddings = _array(model.embedding.weight)
    positions = _array(sinusoid(0, POSITIONS, model.config.width, model.embedding.weight.device))
    into.encoder.embeddings[0].weight = into.decoder.embeddings.weight = embeddings
    into.decoder.projection.weight = embeddings
    for side in (into.encoder, into.decoder):
        side.scale_embeddings = True  # by √D
        side.position_encodings.encodings = positions


def _vocabulary(names: list[str], into: transformer_spec.TransformerSpec) -> None:
    into.register_source_vocabulary(names)
    into.register_target_vocabulary(names)
    config = into.config
    # Any text can be encoded; CTranslate2 wants an unknown token named all the same.
    config.unk_token = config.bos_token = config.decoder_start_token = names[START]
    config.eos_token = names[END]
    config.add_source_bos, config.add_source_eos = False, True


def _encoder_layer(layer: EncoderLayer, into: transformer_spec.TransformerEncoderLayerSpec) -> None:
    _self_attention(layer.self_attention, into.self_attention)
    _norm(layer.around_self_attention.norm, into.self_attention.layer_norm)
    _feed_forward(layer.feed_forward, into.ffn)
    _norm(layer.around_feed_forward.norm, into.ffn.layer_norm)


def _decoder_layer(layer: DecoderLayer, into: transformer_spec.TransformerDecoderLayerSpec) -> None:
    _self_attention(layer.self_attention, into.self_attention)
    _norm(layer.around_self_attention.norm, into.self_attention.layer_norm)
    _cross_attention(layer.cross_attention, into.attention)
    _norm(layer.around_cross_attention.norm, into.attention.layer_norm)
    _feed_forward(layer.feed_forward, into.ffn)
    _norm(layer.around_feed_forward.norm, into.ffn.layer_norm)


def _self_attention(module: SelfAttention, into: attention_spec.MultiHeadAttentionSpec) -> None:
    """Its queries, keys and values are one matrix there, too, in the same order."""
    _linear(module.query_key_value, into.linear[0])
    _linear(module.output, into.linear[1])


def _cross_attention(module: CrossAttention, into: attention_spec.MultiHeadAttentionSpec) -> None:
    _linear(module.query, into.linear[0])
    _linear(module.key_value, into.linear[1])
    _linear(module.output, into.linear[2])


def _feed_forward(module: FeedForward, into: transformer_spec.FeedForwardSpec) -> None:
    _linear(module.inner, into.linear_0)
    _linear(module.outer, into.linear_1)


def _linear(module: nn.Linear, into: common_spec.LinearSpec) -> None:
    into.weight, into.bias = _array(module.weight), _array(module.bias)


def _norm(module: nn.Module, into: common_spec.LayerNormSpec) -> None:
    norm = cast(nn.LayerNorm, module)
    into.gamma, into.beta = _array(norm.weight), _array(norm.bias)


def _array(tensor: Tensor) -> NDArray[np.float32]:
    """A copy: CTranslate2 quantizes in place."""
    return np.array(tensor.detach().float().cpu().numpy())
