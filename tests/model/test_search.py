"""Search against independent, naive searches: one sentence at a time, without a cache."""

import itertools
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from heliograph.model import (
    Constraints,
    Hypothesis,
    Transformer,
    TransformerConfig,
    beam_search,
    greedy_search,
)

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
    model: Transformer,
    source: Tensor,
    max_length: int,
    length_penalty: float,
    min_length: int = 0,
    no_repeat_ngram: int = 0,
    length_offset: float = 0.0,
) -> list[Hypothesis]:
    """All translations that there are, the best first."""
    words = range(3, model.config.vocabulary_size)

    def repeats(tokens: list[int]) -> bool:
        n = no_repeat_ngram
        ngrams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)] if n else []
        return len(set(ngrams)) < len(ngrams)

    def may_end(tokens: list[int]) -> bool:
        if len(tokens) >= min(min_length, max_length):
            return True
        return all(repeats([*tokens, word]) for word in words)

    found = []
    for length in range(max_length + 1):
        for tokens in map(list, itertools.product(words, repeat=length)):
            if not repeats(tokens) and may_end(tokens):
                taken = (length_offset + length + 1) / (length_offset + 1)
                score = log_probability(model, source, tokens) / taken**length_penalty
                found.append(Hypothesis(tokens, score))
    return sorted(found, key=lambda hypothesis: -hypothesis.score)


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


def best(answers: list[list[Hypothesis]]) -> list[Hypothesis]:
    return [hypotheses[0] for hypotheses in answers]


def agree(found: list[Hypothesis], expected: list[Hypothesis]) -> bool:
    return [hypothesis.tokens for hypothesis in found] == [
        hypothesis.tokens for hypothesis in expected
    ] and [hypothesis.score for hypothesis in found] == pytest.approx(
        [hypothesis.score for hypothesis in expected], abs=1e-5
    )


def test_greedy_takes_the_likeliest_token(model: Transformer) -> None:
    sources, limits = random_sources(12), torch.arange(12)
    found = best(greedy_search(model, sources, Constraints(limits)))
    expected = [naive_greedy(model, s, int(n)) for s, n in zip(sources, limits, strict=True)]
    assert [hypothesis.tokens for hypothesis in found] == expected
    for source, hypothesis in zip(sources, found, strict=True):
        score = log_probability(model, source, hypothesis.tokens) / (len(hypothesis.tokens) + 1)
        assert hypothesis.score == pytest.approx(score, abs=1e-5)


def test_a_beam_of_1_is_greedy(model: Transformer) -> None:
    sources, limits = random_sources(12), torch.full((12,), 10)
    beam = best(beam_search(model, sources, Constraints(limits), 1, length_penalty=0.6))
    expected = [naive_greedy(model, source, 10) for source in sources]
    assert [hypothesis.tokens for hypothesis in beam] == expected


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    length_penalty=st.sampled_from([0.0, 0.6, 1.0, 2.0]),
    length_offset=st.sampled_from([0.0, 5.0]),
    max_length=st.integers(0, 4),
    min_length=st.integers(0, 5),
    no_repeat_ngram=st.integers(0, 3),
    n_best=st.sampled_from([1, 2, 7, 200]),
)
def test_a_beam_that_holds_everything_finds_the_best_there_are(
    seed: int,
    length_penalty: float,
    length_offset: float,
    max_length: int,
    min_length: int,
    no_repeat_ngram: int,
    n_best: int,
) -> None:
    torch.manual_seed(seed)
    config = TransformerConfig(6, 8, 2, 1, 1, 16)
    model = Transformer(config).eval()
    with torch.no_grad():
        model.embedding.weight.mul_(3)
    sources = random_sources(2, vocabulary_size=6)
    limits = torch.full((2,), max_length), torch.full((2,), min_length), no_repeat_ngram
    found = beam_search(
        model, sources, Constraints(*limits), 200, length_penalty, n_best, length_offset
    )
    for source, hypotheses in zip(sources, found, strict=True):
        expected = exhaustive(
            model, source, max_length, length_penalty, min_length, no_repeat_ngram, length_offset
        )
        scores = [hypothesis.score for hypothesis in expected[:n_best]]
        assert [hypothesis.score for hypothesis in hypotheses] == pytest.approx(scores, abs=1e-5)
        by_tokens = {tuple(each.tokens): each.score for each in expected}
        assert len({tuple(each.tokens) for each in hypotheses}) == len(hypotheses)
        for each in hypotheses:
            assert each.score == pytest.approx(by_tokens[tuple(each.tokens)], abs=1e-5)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("n_best", [1, 3])
def test_stopping_early_loses_nothing(
    model: Transformer, length_penalty: float, n_best: int
) -> None:
    """Against a search that never stops before `beam` hypotheses have finished."""
    sources, limits = random_sources(8), torch.full((8,), 9)
    found = beam_search(model, sources, Constraints(limits), 4, length_penalty, n_best)
    for source, hypotheses in zip(sources, found, strict=True):
        assert agree(hypotheses, naive_beam(model, source, 4, 9, length_penalty)[:n_best])


def test_stopping_early_saves_steps(model: Transformer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a length penalty a finished hypothesis is soon out of reach."""
    steps = []
    step = model.step
    monkeypatch.setattr(
        model, "step", lambda tokens, state: steps.append(len(tokens)) or step(tokens, state)
    )
    sources = random_sources(8)
    beam_search(model, sources, Constraints(torch.full((8,), 200)), 8, 0.0)
    assert len(steps) < 100
    assert steps == sorted(steps, reverse=True)  # who is done has left
    assert steps[-1] < steps[0]


def naive_beam(
    model: Transformer, source: Tensor, beam: int, max_length: int, length_penalty: float
) -> list[Hypothesis]:
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
    return sorted(finished, key=lambda hypothesis: -hypothesis.score)


@pytest.mark.parametrize("beam", [1, 4])
def test_a_sentence_never_depends_on_its_batch_mates(model: Transformer, beam: int) -> None:
    sources = random_sources(40)
    limits = torch.randint(0, 12, (40,))

    def search(rows: Tensor, padding: int = 0) -> list[Hypothesis]:
        padded = nn.functional.pad(sources[rows], (0, padding))
        return best(beam_search(model, padded, Constraints(limits[rows]), beam, 1.0))

    together = search(torch.arange(40))
    order = torch.randperm(40)
    shuffled, more_padding = search(order), search(order, padding=4)
    for position, number in enumerate(order.tolist()):
        [alone] = search(torch.tensor([number]))
        # Rows do not mix, not even by rounding; other padding rounds otherwise.
        assert alone == together[number] == shuffled[position]
        assert alone.tokens == more_padding[position].tokens
        assert alone.score == pytest.approx(more_padding[position].score, abs=1e-5)


class Beginning:
    """A prefix of fixed tokens."""

    def __init__(self, *tokens: int) -> None:
        self.tokens = list(tokens)

    def allowed(self, tokens: Sequence[int]) -> Sequence[int] | None:
        if list(tokens[: len(self.tokens)]) != self.tokens[: len(tokens)]:
            return []
        return self.tokens[len(tokens) : len(tokens) + 1] or None


def test_a_prefix_is_followed_by_its_best_continuation(model: Transformer) -> None:
    sources, limits = random_sources(4), torch.full((4,), 7)
    prefixes = [None, Beginning(5), Beginning(9, 9, 9), Beginning(3, 4, 5, 6, 7, 8, 9)]
    constraints = Constraints(limits, no_repeat_ngram=1, prefixes=prefixes)
    found = beam_search(model, sources, constraints, 4, n_best=2)
    for source, prefix, hypotheses in zip(sources, prefixes, found, strict=True):
        for hypothesis in hypotheses:
            tokens = hypothesis.tokens
            given = prefix.tokens if prefix else []
            assert tokens[: len(given)] == given
            added = tokens[len(given) :]  # A prefix may repeat itself, what follows it may not.
            assert len(set(added)) == len(added)
            assert not set(added) & set(given)
            score = log_probability(model, source, tokens) / (len(tokens) + 1)
            assert hypothesis.score == pytest.approx(score, abs=1e-5)
    assert [hypothesis.tokens for hypothesis in found[3]] == [[3, 4, 5, 6, 7, 8, 9]]
    assert found[0] == beam_search(model, sources[:1], Constraints(limits[:1], None, 1), 4, 1, 2)[0]


def test_a_prefix_without_room_has_no_translation(model: Transformer) -> None:
    constraints = Constraints(torch.tensor([2]), prefixes=[Beginning(3, 4, 5)])
    assert beam_search(model, random_sources(1), constraints, 4) == [[]]


def test_always_answers(model: Transformer) -> None:
    with torch.no_grad():  # The end token is never likely.
        model.embedding.weight[2] *= 0
        model.embedding.weight[3:] *= 3
    for beam in (1, 3):
        limits = torch.tensor([0, 1, 5, 9, 9])
        found = best(beam_search(model, random_sources(5), Constraints(limits), beam, 1.0))
        assert all(len(h.tokens) <= n for h, n in zip(found, [0, 1, 5, 9, 9], strict=True))
        assert all(h.score < 0 and h.score > -100 for h in found)
        assert not any({0, 1, 2} & set(h.tokens) for h in found)
    nothing = torch.zeros(0, 4, dtype=torch.int64)
    nobody = Constraints(torch.zeros(0, dtype=torch.int64))
    assert beam_search(model, nothing, nobody, 3, 1.0) == []


def test_refuses_what_makes_no_sense(model: Transformer) -> None:
    source, limits = random_sources(2), torch.tensor([3, 3])
    for arguments, message in [((0, 1.0), "beam"), ((2, -1.0), "length_penalty")]:
        with pytest.raises(ValueError, match=message):
            beam_search(model, source, Constraints(limits), *arguments)
    with pytest.raises(ValueError, match="n_best"):
        beam_search(model, source, Constraints(limits), 2, n_best=3)
    with pytest.raises(ValueError, match="max_lengths"):
        Constraints(torch.tensor([3, -1]))
    with pytest.raises(ValueError, match="no_repeat_ngram"):
        Constraints(limits, no_repeat_ngram=-1)
    with pytest.raises(ValueError, match="1 prefixes for 2 sentences"):
        Constraints(limits, prefixes=[None])
    with pytest.raises(ValueError, match="training mode"):
        greedy_search(model.train(), source, Constraints(limits))
