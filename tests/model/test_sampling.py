"""Translations drawn at random: from the model's distribution, and from nothing but the seed."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch

from heliograph.model import Constraints, Transformer, TransformerConfig, greedy_search, sample
from heliograph.model.sampling import draw

MakeModel = Callable[..., Transformer]
SOURCES = torch.tensor([[5, 9, 17, 2], [21, 3, 2, 0], [4, 2, 0, 0], [5, 9, 17, 2]])


def limits(count: int = 4, length: int = 8) -> Constraints:
    return Constraints(torch.full((count,), length))


@pytest.fixture
def model(make_model: MakeModel) -> Transformer:
    return make_model().eval()


def shares(logits: torch.Tensor, top_k: int = 0, top_p: float = 1.0) -> list[float]:
    """How often each token is drawn by 10,000 chances spread evenly."""
    chances = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    drawn = draw(logits.expand(10_000, -1), chances, top_k, top_p)
    return (torch.bincount(drawn, minlength=len(logits)) / 10_000).tolist()


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    logits = torch.tensor([0.1, 0.4, 0.0, 0.2, 0.3]).log()  # one is forbidden
    assert shares(logits) == pytest.approx([0.1, 0.4, 0.0, 0.2, 0.3], abs=2e-4)
    assert shares(logits, top_k=2) == pytest.approx([0, 4 / 7, 0, 0, 3 / 7], abs=2e-4)
    assert shares(logits, top_k=50) == pytest.approx([0.1, 0.4, 0, 0.2, 0.3], abs=2e-4)
    assert shares(logits, top_p=0.65) == pytest.approx([0, 4 / 7, 0, 0, 3 / 7], abs=2e-4)
    assert shares(logits, top_p=0.75) == pytest.approx([0, 4 / 9, 0, 2 / 9, 3 / 9], abs=2e-4)
    assert shares(logits, top_p=1e-9) == [0, 1, 0, 0, 0]
    # top_p counts what top_k left: 4/7 of two.
    assert shares(logits, top_k=2, top_p=0.5) == [0, 1, 0, 0, 0]


def test_the_largest_chance_draws_a_possible_token() -> None:
    logits = torch.tensor([[0.0, -1.0, -torch.inf], [-torch.inf, 0.0, -200.0]])
    chance = torch.full((2,), 1 - 2**-53, dtype=torch.float64)
    assert draw(logits, chance).tolist() == [1, 1]


def test_whole_translations_are_drawn_as_often_as_they_are_likely() -> None:
    torch.manual_seed(1)
    model = Transformer(TransformerConfig(6, 8, 2, 1, 1, 16)).eval()
    source = torch.tensor([[3, 5, 2]])
    draws = 4000
    [found] = sample(model, source, limits(1, 1), [7], draws, temperature=0.7, length_penalty=0)
    counts = Counter(tuple(hypothesis.tokens) for hypothesis in found)
    first = model(source, torch.tensor([[1]]))[0, -1]
    first[:2] = -torch.inf
    expected = (first / 0.7).softmax(-1)
    for tokens in [(), (3,), (4,), (5,)]:
        probability = float(expected[tokens[0] if tokens else 2].detach())
        assert counts[tokens] / draws == pytest.approx(probability, abs=0.03)  # four deviations
    # Scores are the model's own, whatever the temperature.
    log_probabilities = {h.tokens[0] if h.tokens else 2: h.score for h in found}
    one = model(source, torch.tensor([[1]]))[0, -1].log_softmax(-1)
    assert log_probabilities[2] == pytest.approx(float(one[2].detach()), abs=1e-5)
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)


@pytest.mark.parametrize("arguments", [{"temperature": 1e-4}, {"top_k": 1}, {"top_p": 1e-6}])
def test_without_chance_it_is_greedy_search(model: Transformer, arguments: dict[str, int]) -> None:
    drawn = sample(model, SOURCES, limits(), [1, 2, 3, 4], **arguments)
    greedy = greedy_search(model, SOURCES, limits())
    assert [h.tokens for [h] in drawn] == [h.tokens for [h] in greedy]
    assert [h.score for [h] in drawn] == pytest.approx([h.score for [h] in greedy], abs=1e-5)


def test_draws_depend_on_the_seed_and_not_on_batch_mates(model: Transformer) -> None:
    together = sample(model, SOURCES, limits(), [1, 2, 3, 4], draws=3)
    for row in range(4):
        alone = sample(model, SOURCES[row : row + 1], limits(1), [row + 1], draws=3)
        assert alone == together[row : row + 1]
    others = Constraints(torch.tensor([8, 8, 8, 30]))
    assert sample(model, SOURCES, others, [1, 2, 3, 4], draws=3)[:3] == together[:3]
    assert together[0] != together[3]  # The same sentence by another seed.
    [more] = sample(model, SOURCES[:1], limits(1), [1], draws=9)
    assert {tuple(h.tokens) for h in together[0]} <= {tuple(h.tokens) for h in more}


def test_draws_keep_to_the_constraints(model: Transformer) -> None:
    constraints = Constraints(torch.tensor([0, 5, 9, 9]), torch.tensor([0, 5, 6, 12]), 1)
    found = sample(model, SOURCES, constraints, [1, 2, 3, 4], draws=20, temperature=2.0)
    for hypotheses, (least, most) in zip(found, [(0, 0), (5, 5), (6, 9), (9, 9)], strict=True):
        assert len(hypotheses) == 20
        for hypothesis in hypotheses:
            assert least <= len(hypothesis.tokens) <= most
            assert len(set(hypothesis.tokens)) == len(hypothesis.tokens)
            assert not {0, 1, 2} & set(hypothesis.tokens)


def test_of_no_sentences_nothing_is_drawn(model: Transformer) -> None:
    assert sample(model, SOURCES[:0], limits(0), [], draws=2) == []


@pytest.mark.parametrize(
    "arguments", [{"draws": 0}, {"temperature": 0}, {"top_k": -1}, {"top_p": 0}]
)
def test_refuses_what_makes_no_sense(model: Transformer, arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        sample(model, SOURCES, limits(), [1, 2, 3, 4], **arguments)
