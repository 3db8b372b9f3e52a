"""The Transformer of "Attention Is All You Need" (Vaswani et al., 2017): torch and nothing else.

config        its sizes and rates
transformer   the model: encode, decode, forward, and one step at a time for search
blocks        encoder and decoder layers: attention, feed-forward, add & norm
attention     multi-head self- and cross-attention, with their key-value cache
functional    the few operations that have their own form on a CPU, for speed
loss          label-smoothed cross entropy, as a sum and a token count
schedule      the learning rate: warm-up, then inverse square root decay
constraints   what a translation may not do, and what it begins with
search        greedy and beam search
sampling      translations drawn at random
"""

from heliograph.model.config import TransformerConfig
from heliograph.model.constraints import Constraints, Prefix
from heliograph.model.functional import autocast_for
from heliograph.model.loss import SmoothedLoss
from heliograph.model.sampling import sample
from heliograph.model.schedule import inverse_square_root
from heliograph.model.search import Hypothesis, beam_search, greedy_search
from heliograph.model.transformer import Transformer

__all__ = [
    "Constraints",
    "Hypothesis",
    "Prefix",
    "SmoothedLoss",
    "Transformer",
    "TransformerConfig",
    "autocast_for",
    "beam_search",
    "greedy_search",
    "inverse_square_root",
    "sample",
]
