"""The model against torch.nn.Transformer, and what padding must never do."""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from heliograph.model import Constraints, SmoothedLoss, Transformer, greedy_search
from heliograph.model.transformer import sinusoid

MakeModel = Callable[..., Transformer]
Calls = Callable[[Callable[[], object]], Counter[str]]
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


class Reference(nn.Module):
    """torch.nn.Transformer with tied, scaled embeddings and sinusoidal positions around it."""

    def __init__(self, ours: Transformer) -> None:
        super().__init__()
        config = ours.config
        self.pad_id = config.pad_id
        self.embedding = nn.Embedding(config.vocabulary_size, config.width)
        self.transformer = nn.Transformer(
            config.width,
            config.heads,
            config.encoder_layers,
            config.decoder_layers,
            config.feed_forward,
            dropout=0.0,
            batch_first=True,
            norm_first=config.norm == "pre",
        )
        if config.norm == "post":  # The paper has no norm after the stack; torch adds one.
            self.transformer.encoder.norm = None
            self.transformer.decoder.norm = None
        # In training mode with dropout 0, so that torch takes no fast path without gradients.
        self.train()
        with torch.no_grad():
            for mine, theirs in zip(
                matched_parameters(ours), self.matched_parameters(), strict=True
            ):
                theirs.copy_(mine)

    def matched_parameters(self) -> list[nn.Parameter]:
        modules: list[nn.Module] = [self.embedding]
        for layer in self.transformer.encoder.layers:
            modules += [layer.self_attn, layer.self_attn.out_proj, layer.linear1, layer.linear2]
            modules += [layer.norm1, layer.norm2]
        for layer in self.transformer.decoder.layers:
            modules += [layer.self_attn, layer.self_attn.out_proj]
            modules += [layer.multihead_attn, layer.multihead_attn.out_proj]
            modules += [layer.linear1, layer.linear2, layer.norm1, layer.norm2, layer.norm3]
        modules += [self.transformer.encoder.norm, self.transformer.decoder.norm]
        return [p for m in modules if m is not None for p in m.parameters(recurse=False)]

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        hidden = self.transformer(
            self.embed(source),
            self.embed(target),
            tgt_mask=torch.ones(target.size(1), target.size(1)).triu(1).bool(),
            src_key_padding_mask=source == self.pad_id,
            tgt_key_padding_mask=target == self.pad_id,
            memory_key_padding_mask=source == self.pad_id,
        )
        return hidden @ self.embedding.weight.T

    def embed(self, tokens: Tensor) -> Tensor:
        width = self.embedding.weight.size(1)
        positions = [
            [
                math.sin(position / 10000 ** (i / width))
                if i % 2 == 0
                else math.cos(position / 10000 ** ((i - 1) / width))
                for i in range(width)
            ]
            for position in range(tokens.size(1))
        ]
        return self.embedding(tokens) * math.sqrt(width) + torch.tensor(positions)


def matched_parameters(model: Transformer, gradients: bool = False) -> list[Tensor]:
    """Weights, or their gradients, in the order of `Reference.matched_parameters`."""
    modules: list[nn.Module | tuple[nn.Linear, nn.Linear]] = [model.embedding]
    for layer in model.encoder:
        modules += [layer.self_attention.query_key_value, layer.self_attention.output]
        modules += [layer.feed_forward.inner, layer.feed_forward.outer]
        modules += [layer.around_self_attention.norm, layer.around_feed_forward.norm]
    for layer in model.decoder:
        modules += [layer.self_attention.query_key_value, layer.self_attention.output]
        modules += [(layer.cross_attention.query, layer.cross_attention.key_value)]
        modules += [layer.cross_attention.output]
        modules += [layer.feed_forward.inner, layer.feed_forward.outer]
        modules += [layer.around_self_attention.norm, layer.around_cross_attention.norm]
        modules += [layer.around_feed_forward.norm]
    modules += [model.encoder_norm, model.decoder_norm]

    def parameters(module: nn.Module) -> list[Tensor]:
        return [p.grad if gradients else p for p in module.parameters(recurse=False)]

    matched: list[Tensor] = []
    for module in modules:
        if isinstance(module, tuple):
            pairs = zip(*map(parameters, module), strict=True)
            matched += [torch.cat(pair) for pair in pairs]
        else:
            matched += parameters(module)
    return matched


# torch says so of every pre-norm encoder; nothing nested is wanted here.
pytestmark = pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")


@pytest.fixture(params=["post", "pre"])
def model(request: pytest.FixtureRequest, make_model: MakeModel) -> Transformer:
    model = make_model(norm=request.param)
    with torch.no_grad():  # Biases and norms that start as 0 and 1 would hide a mix-up.
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.mark.parametrize("padded", [True, False])
def test_outputs_and_gradients_equal_torchs(
    model: Transformer, source: Tensor, target: Tensor, padded: bool
) -> None:
    if not padded:
        source, target = source[:1], target[:1, :4]
    reference = Reference(model)
    real = target != 0
    ours, theirs = model(source, target)[real], reference(source, target)[real]
    torch.testing.assert_close(ours, theirs, **TOLERANCE)

    direction = torch.randn_like(ours)
    (ours * direction).sum().backward()
    (theirs * direction).sum().backward()
    gradients = matched_parameters(model, gradients=True)
    assert len(gradients) == len(list(reference.parameters()))
    for mine, parameter in zip(gradients, reference.matched_parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad, **TOLERANCE)


def test_every_parameter_is_compared(model: Transformer) -> None:
    compared = sum(p.numel() for p in matched_parameters(model))
    assert compared == sum(p.numel() for p in model.parameters())


def test_positions_have_no_end_and_are_the_same_from_any_start() -> None:
    positions = sinusoid(0, 3000, 8, torch.device("cpu"))
    expected = [f(2999 / 10000 ** (i / 8)) for i in range(0, 8, 2) for f in (math.sin, math.cos)]
    torch.testing.assert_close(positions[2999], torch.tensor(expected), rtol=0, atol=2e-4)
    torch.testing.assert_close(sinusoid(2990, 10, 8, torch.device("cpu")), positions[2990:])


def test_positions_are_computed_once_for_many_tokens(make_model: MakeModel, calls: Calls) -> None:
    model, source = make_model().eval(), torch.tensor([[5, 9, 17, 4, 11, 2]])
    with torch.no_grad():
        model.embedding.weight[2] = 0  # an end that is hardly ever likely
        model.embedding.weight[3:] *= 3

    def search() -> None:
        [[found]] = greedy_search(model, source, Constraints(torch.tensor([30])))
        assert len(found.tokens) == 30

    assert calls(search)["aten::sin"] == 3  # up to 8, 16 and 32
    assert calls(search)["aten::sin"] == 0
    # Search leaves no trace in what is saved, and nothing that training cannot use.
    assert {name.split(".")[-1] for name in model.state_dict()} == {"weight", "bias"}
    model.train()(source, source).sum().backward()


def test_positions_of_a_table_are_those_of_each_by_itself(make_model: MakeModel) -> None:
    model, cpu = make_model(width=64), torch.device("cpu")
    for start, end in [(0, 1), (1, 2), (3, 4), (0, 7), (8, 9), (500, 501), (0, 700), (1033, 1034)]:
        for table in (
            model._sinusoid,
            make_model(width=64)._sinusoid,
        ):  # one that has grown, or not
            assert torch.equal(table(start, end, cpu), sinusoid(start, end - start, 64, cpu))
    assert model._sinusoid(0, 3, torch.device("meta")).device == torch.device("meta")


def test_embeddings_are_tied(model: Transformer) -> None:
    tied = [name for name, p in model.named_parameters() if 23 in p.shape]
    assert tied == ["embedding.weight"]


class TestPadding:
    """Padded positions have zero influence, on outputs and on gradients."""

    def test_more_padding_changes_nothing(
        self, model: Transformer, source: Tensor, target: Tensor
    ) -> None:
        real = target != 0
        wider = model(functional.pad(source, (0, 5)), functional.pad(target, (0, 3)))[:, :5]
        torch.testing.assert_close(wider[real], model(source, target)[real])

    def test_what_stands_there_changes_nothing(
        self, model: Transformer, source: Tensor, target: Tensor, target_out: Tensor
    ) -> None:
        """The padding token's embedding is seen only where it is scored as an output."""
        memory = model.encode(source)
        hidden = model.decode_hidden(target, memory, source)
        with torch.no_grad():
            model.embedding.weight[0] += 100.0
        moved = model.decode_hidden(target, model.encode(source), source)
        real = target_out != 0
        torch.testing.assert_close(moved[real], hidden[real], rtol=0, atol=0)

    def test_gets_no_gradient(
        self, model: Transformer, source: Tensor, target: Tensor, target_out: Tensor
    ) -> None:
        seen: list[tuple[Tensor, Tensor]] = []

        def remember(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            output.register_hook(lambda gradient: seen.append((inputs[0], gradient)))

        model.embedding.register_forward_hook(remember)
        SmoothedLoss(model, 0.1)(source, target, target_out)[0].backward()
        assert len(seen) == 2
        for tokens, gradient in seen:
            assert bool((gradient[tokens == 0] == 0).all())
            assert bool((gradient[tokens != 0] != 0).any())

    def test_a_row_of_nothing_else_stays_finite_and_changes_nothing(
        self, model: Transformer, source: Tensor, target: Tensor, target_out: Tensor
    ) -> None:
        def gradients(*batch: Tensor) -> tuple[Tensor, int, list[Tensor]]:
            model.zero_grad()
            loss, tokens = SmoothedLoss(model, 0.1)(*batch)
            loss.backward()
            return loss, int(tokens), [p.grad.clone() for p in model.parameters()]

        alone = gradients(source, target, target_out)
        beside = gradients(*(functional.pad(x, (0, 0, 0, 2)) for x in (source, target, target_out)))
        torch.testing.assert_close(beside, alone, **TOLERANCE)
        logits = model(functional.pad(source, (0, 0, 0, 1)), functional.pad(target, (0, 0, 0, 1)))
        assert bool(logits.isfinite().all())


def test_cached_logits_equal_uncached(model: Transformer, source: Tensor, target: Tensor) -> None:
    model.eval()
    state = model.start(source)
    cached = [model.step(target[:, t : t + 1], state)[:, 0] for t in range(target.size(1))]
    torch.testing.assert_close(torch.stack(cached, dim=1), model(source, target), **TOLERANCE)


def test_hypotheses_share_a_source_and_keep_their_own_past(
    model: Transformer, source: Tensor, target: Tensor
) -> None:
    model.eval()
    state = model.start(source)
    model.step(target[:, :1], state)
    state.keep_hypotheses(torch.tensor([0, 0, 1, 1, 2, 2]))
    pair = torch.stack([target[:, 1], torch.tensor([4, 5, 6])], dim=1)
    model.step(pair, state)
    # Sentence 0 leaves; of sentence 2 the second hypothesis becomes two; 1's change places.
    state.keep_sentences(torch.tensor([1, 2]))
    state.keep_hypotheses(torch.tensor([3, 2, 5, 5]))
    logits = model.step(torch.tensor([[7, 8], [9, 10]]), state)

    for row, column, prefix in [
        (0, 0, [1, 5, 7]),
        (0, 1, [1, 15, 8]),
        (1, 0, [1, 6, 9]),
        (1, 1, [1, 6, 10]),
    ]:
        alone = model(source[row + 1 : row + 2], torch.tensor([prefix]))[0, -1]
        torch.testing.assert_close(logits[row, column], alone, **TOLERANCE)


def test_cross_attention_returns_every_heads_weights(
    model: Transformer, source: Tensor, target: Tensor
) -> None:
    weights = model.cross_attention(source, target)
    assert weights.shape == (2, 3, 4, 5, 6)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 4, 5))
    hidden = (source == 0)[None, :, None, None, :].expand_as(weights)
    assert bool((weights[hidden] == 0).all())

    reference = Reference(model)
    theirs: list[Tensor] = []
    for layer in reference.transformer.decoder.layers:
        attention = layer.multihead_attn
        attention.register_forward_pre_hook(ask_for_weights, with_kwargs=True)
        attention.register_forward_hook(lambda _, __, output: theirs.append(output[1]))
    reference(source, target)
    real = (target != 0)[None, :, None, :, None]  # torch hides padding in the target as well
    torch.testing.assert_close(weights * real, torch.stack(theirs) * real, **TOLERANCE)


def ask_for_weights(
    _: nn.Module, inputs: tuple[Tensor, ...], options: dict[str, Any]
) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    return inputs, options | {"need_weights": True, "average_attn_weights": False}


def test_dropout_rates_are_set_apart(make_model: MakeModel, source: Tensor, target: Tensor) -> None:
    expected = make_model().eval()(source, target)
    for rate in ("dropout", "attention_dropout", "embedding_dropout"):
        model = make_model(**{rate: 0.5})
        assert not torch.allclose(model(source, target), expected)
        torch.testing.assert_close(model.eval()(source, target), expected)


def test_ten_pairs_are_learned_by_heart(make_model: MakeModel) -> None:
    model = make_model(width=64)
    torch.manual_seed(1)
    sentences = torch.randint(3, 23, (10, 7))
    translations = torch.randint(3, 23, (10, 6))
    end, start = torch.full((10, 1), 2), torch.full((10, 1), 1)
    source = torch.cat([sentences, end], 1)
    target_in, target_out = torch.cat([start, translations], 1), torch.cat([translations, end], 1)
    loss = SmoothedLoss(model, 0.1)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(150):
        optimizer.zero_grad()
        total, tokens = loss(source, target_in, target_out)
        (total / tokens).backward()
        optimizer.step()
    found = greedy_search(model.eval(), source, Constraints(torch.full((10,), 12)))
    assert [best.tokens for [best] in found] == translations.tolist()
