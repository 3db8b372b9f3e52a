"""Search against independent, naive searches: one sentence at a time, without a cache."""

import itertools
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from model import Hypothesis, Transformer, TransformerConfig, beam_search, greedy_search

MakeModel = Callable[..., Transformer]


def log_probability(model: Transformer, source: Tensor, tokens: list[int]) -> float:
    """Of a whole translation, the end token included, by one uncached pass. source [S]."""
    target_in = torch.tensor([[1, *tokens]])
    log_probabilities = model(source[None], target_in).log_softmax(-1)[0]
    return log_probabilities.gather(1, torch.tensor([[*tokens, 2]]).T).sum().item()


def naive_greedy(model: Transformer, source: Tensor, max_length: int) -> list[int]:
    tokens: list[int] = []
    while len(tokens) < max_length:
        scores = model(source[None], torch.tensor([[1, *tokens]]))[0, -1]
        scores[:2] = -torch.inf
        if (best := int(scores.argmax())) == 2:
            break
        tokens.append(best)
    return tokens


def exhaustive(
    model: Transformer, source: Tensor, max_length: int, length_penalty: float
) -> Hypothesis:
    """The best of all translations there are."""
    words = range(3, model.config.vocabulary_size)
    translations = [
        list(tokens)
        for length in range(max_length + 1)
        for tokens in itertools.product(words, repeat=length)
    ]
    scores = [
        log_probability(model, source, tokens) / (len(tokens) + 1) ** length_penalty
        for tokens in translations
    ]
    best = max(range(len(scores)), key=scores.__getitem__)
    return Hypothesis(translations[best], scores[best])


def random_sources(count: int, vocabulary_size: int = 23) -> Tensor:
    """[count, 9]: sentences of 0 to 8 tokens before their end."""
    source = torch.randint(3, vocabulary_size, (count, 9))
    for row, length in enumerate(torch.randint(0, 9, (count,)).tolist()):
        source[row, length] = 2
        source[row, length + 1 :] = 0
    return source


@pytest.fixture
def model(make_model: MakeModel) -> Transformer:
    """Decided enough that translations differ, end at various lengths, and scores do not tie."""
    model = make_model().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(1.5 if "weight" in name and "norm" not in name else 1)
    return model


def test_greedy_takes_the_likeliest_token(model: Transformer) -> None:
    sources, limits = random_sources(12), torch.arange(12)
    found = greedy_search(model, sources, limits)
    expected = [naive_greedy(model, s, int(n)) for s, n in zip(sources, limits, strict=True)]
    assert [hypothesis.tokens for hypothesis in found] == expected
    for source, hypothesis in zip(sources, found, strict=True):
        score = log_probability(model, source, hypothesis.tokens) / (len(hypothesis.tokens) + 1)
        assert hypothesis.score == pytest.approx(score, abs=1e-5)


def test_a_beam_of_1_is_greedy(model: Transformer) -> None:
    sources, limits = random_sources(12), torch.full((12,), 10)
    beam = beam_search(model, sources, 1, limits, length_penalty=0.6)
    expected = [naive_greedy(model, source, 10) for source in sources]
    assert [hypothesis.tokens for hypothesis in beam] == expected


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    length_penalty=st.sampled_from([0.0, 0.6, 1.0, 2.0]),
    max_length=st.integers(0, 4),
)
def test_a_beam_that_holds_everything_finds_the_best_there_is(
    seed: int, length_penalty: float, max_length: int
) -> None:
    torch.manual_seed(seed)
    config = TransformerConfig(6, 8, 2, 1, 1, 16)
    model = Transformer(config).eval()
    with torch.no_grad():
        model.embedding.weight.mul_(3)
    sources = random_sources(3, vocabulary_size=6)
    found = beam_search(model, sources, 200, torch.full((3,), max_length), length_penalty)
    for source, hypothesis in zip(sources, found, strict=True):
        best = exhaustive(model, source, max_length, length_penalty)
        assert hypothesis.score == pytest.approx(best.score, abs=1e-5)
        assert hypothesis.tokens == best.tokens


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_stopping_early_loses_nothing(model: Transformer, length_penalty: float) -> None:
    """Against a search that never stops before `beam` hypotheses have finished."""
    sources, limits = random_sources(8), torch.full((8,), 9)
    found = beam_search(model, sources, 4, limits, length_penalty)
    for source, hypothesis in zip(sources, found, strict=True):
        expected = naive_beam(model, source, 4, 9, length_penalty)
        assert hypothesis.score == pytest.approx(expected.score, abs=1e-5)
        assert hypothesis.tokens == expected.tokens


def naive_beam(
    model: Transformer, source: Tensor, beam: int, max_length: int, length_penalty: float
) -> Hypothesis:
    alive: list[tuple[float, list[int]]] = [(0.0, [])]
    finished: list[Hypothesis] = []
    while alive and len(finished) < beam:
        extensions = []
        for score, tokens in alive:
            scores = model(source[None], torch.tensor([[1, *tokens]])).log_softmax(-1)[0, -1]
            allowed = range(2, scores.numel() if len(tokens) < max_length else 3)
            extensions += [(score + scores[token].item(), [*tokens, token]) for token in allowed]
        extensions.sort(reverse=True)
        for score, tokens in extensions[:beam]:
            if tokens[-1] == 2:
                finished.append(Hypothesis(tokens[:-1], score / len(tokens) ** length_penalty))
        alive = [(score, tokens) for score, tokens in extensions if tokens[-1] != 2][:beam]
    return max(finished, key=lambda hypothesis: hypothesis.score)


@pytest.mark.parametrize("beam", [1, 4])
def test_a_sentence_never_depends_on_its_batch_mates(model: Transformer, beam: int) -> None:
    sources = random_sources(40)
    limits = torch.randint(0, 12, (40,))
    together = beam_search(model, sources, beam, limits, 1.0)
    order = torch.randperm(40)
    shuffled = beam_search(model, nn.functional.pad(sources, (0, 4))[order], beam, limits[order], 1)
    for position, number in enumerate(order.tolist()):
        real = sources[number : number + 1, : int((sources[number] != 0).sum())]
        [alone] = beam_search(model, real, beam, limits[number : number + 1], 1.0)
        assert alone.tokens == together[number].tokens == shuffled[position].tokens
        assert alone.score == pytest.approx(together[number].score, abs=1e-5)


def test_always_answers(model: Transformer) -> None:
    with torch.no_grad():  # The end token is never likely.
        model.embedding.weight[2] *= 0
        model.embedding.weight[3:] *= 3
    for beam in (1, 3):
        found = beam_search(model, random_sources(5), beam, torch.tensor([0, 1, 5, 9, 9]), 1.0)
        assert all(len(h.tokens) <= n for h, n in zip(found, [0, 1, 5, 9, 9], strict=True))
        assert all(h.score < 0 and h.score > -100 for h in found)
        assert not any({0, 1, 2} & set(h.tokens) for h in found)
    nothing = torch.zeros(0, 4, dtype=torch.int64)
    assert beam_search(model, nothing, 3, torch.zeros(0, dtype=torch.int64), 1.0) == []


def test_refuses_what_makes_no_sense(model: Transformer) -> None:
    source, limits = random_sources(2), torch.tensor([3, 3])
    with pytest.raises(ValueError, match="beam"):
        beam_search(model, source, 0, limits, 1.0)
    with pytest.raises(ValueError, match="length_penalty"):
        beam_search(model, source, 2, limits, -1.0)
    with pytest.raises(ValueError, match="training mode"):
        greedy_search(model.train(), source, limits)
