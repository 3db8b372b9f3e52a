import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from heliograph.model.transformer import DecoderState
from heliograph.pipeline.request.decoding import Decoding, Evaluate, Sampling
from heliograph.pipeline.scoring.evaluate import evaluate
from heliograph.pipeline.translation.translate import Translation, Translator
from tests.pipeline.conftest import PAIRS, MakeModel

SOURCES = [source for source, _ in PAIRS]
TARGETS = [target for _, target in PAIRS]


@pytest.fixture(scope="module")
def translator(make_model: MakeModel) -> Translator:
    return Translator.load(make_model(1), "cpu")


def test_what_was_learnt_by_heart_is_translated(translator: Translator) -> None:
    assert translator.translate(SOURCES, Evaluate()) == TARGETS
    assert evaluate(translator, PAIRS, Evaluate()).bleu == pytest.approx(100)


@settings(max_examples=15)
@given(
    sentences=st.lists(
        st.sampled_from([*SOURCES, "", " ", "The old dog eats a tree."]), max_size=9
    ),
    budget=st.integers(1, 200),
    beam=st.integers(1, 3),
)
def test_a_sentence_is_translated_alike_in_any_company(
    translator: Translator, sentences: list[str], budget: int, beam: int
) -> None:
    alone = {text: translator.translate([text], Evaluate(beam=beam)) for text in set(sentences)}
    together = translator.translate(sentences, Evaluate(beam=beam, tokens_per_batch=budget))
    assert together == [alone[text][0] for text in sentences]


def test_any_batches_and_any_order_give_the_same_to_the_last_bit(translator: Translator) -> None:
    words = sorted({word for source in SOURCES for word in source.split()})
    draw = random.Random(1)
    sentences = [" ".join(draw.choices(words, k=draw.randint(1, 9))) for _ in range(40)]
    wanted = Decoding(beam=3, n_best=2, max_length_factor=1.0, max_length_extra=3)
    together = translator.alternatives(sentences, wanted)
    order = draw.sample(range(40), 40)
    for size in (1, 8, 32):
        found: list[list[Translation]] = [[]] * 40
        for start in range(0, 40, size):
            numbers = order[start : start + size]
            answers = translator.alternatives([sentences[n] for n in numbers], wanted)
            for number, answer in zip(numbers, answers, strict=True):
                found[number] = answer
        assert found == together


def test_alternatives_come_with_their_scores_the_best_first(translator: Translator) -> None:
    found = translator.alternatives([*SOURCES, " "], Decoding(n_best=3))
    assert [len(each) for each in found] == [3] * len(SOURCES) + [0]
    assert [each[0].text for each in found[:-1]] == TARGETS
    for each in found:
        assert [a.score for a in each] == sorted((a.score for a in each), reverse=True)
        assert len({a.text for a in each}) == len(each)


@settings(max_examples=15)
@given(
    prefix=st.sampled_from([target[:n] for target in TARGETS for n in (1, 6, 11, 99)])
    | st.text(max_size=6),
    n_best=st.integers(1, 2),
    sampling=st.none() | st.builds(Sampling, seed=st.integers(0, 99)),
)
def test_a_translation_begins_as_it_has_to(
    translator: Translator, prefix: str, n_best: int, sampling: Sampling | None
) -> None:
    wanted = Decoding(beam=3, n_best=n_best, sampling=sampling, max_length_factor=0.1)
    [forced, free] = translator.alternatives(SOURCES[:2], wanted, [prefix, ""])
    assert 1 <= len(forced) <= n_best
    assert all(each.text.startswith(prefix) for each in forced)
    assert free == translator.alternatives(SOURCES[1:2], wanted)[0]


def test_a_prefix_goes_on_as_it_was_learnt(translator: Translator) -> None:
    ends = [5, 8, 13, 20]  # inside and between words
    prefixes = [target[:end] for target in TARGETS for end in ends]
    sources = [source for source in SOURCES for _ in ends]
    found = translator.alternatives(sources, Decoding(beam=2), prefixes)
    assert [each[0].text for each in found] == [target for target in TARGETS for _ in ends]


def test_what_is_drawn_depends_on_seed_and_sentence_alone(translator: Translator) -> None:
    def draw(sentences: list[str], seed: int = 1) -> list[list[Translation]]:
        chance = Sampling(temperature=1.5, top_k=40, top_p=0.98, seed=seed)
        return translator.alternatives(sentences, Decoding(beam=1, n_best=3, sampling=chance))

    together = draw(SOURCES)
    assert draw(SOURCES[::-1])[::-1] == together
    assert [draw([source])[0] for source in SOURCES] == together
    assert draw(SOURCES, seed=2) != together
    assert translator.translate(
        SOURCES, Decoding(sampling=Sampling(top_k=1), beam=1)
    ) == translator.translate(SOURCES, Evaluate(beam=1))


def test_a_translation_is_as_long_as_the_settings_want_it(translator: Translator) -> None:
    lengths = [len(ids) for ids in translator.tokenizer.encode_batch(SOURCES)]
    longer = Evaluate(min_length_factor=1.5, no_repeat_ngram=2)
    for text, length, usual in zip(
        translator.translate(SOURCES, longer), lengths, TARGETS, strict=True
    ):
        assert len(text.encode()) >= int(1.5 * length)  # each token is at least a byte
        assert text != usual


@pytest.mark.parametrize("sampling", [None, Sampling(seed=1)])
def test_search_is_told_whether_its_sources_are_padded(
    translator: Translator, monkeypatch: pytest.MonkeyPatch, sampling: Sampling | None
) -> None:
    """It would have to ask a GPU."""
    start, told = translator.model.start, []

    def remember(source: torch.Tensor, padded: bool | None) -> DecoderState:
        told.append((padded, bool((source == translator.model.config.pad_id).any())))
        return start(source, padded)

    monkeypatch.setattr(translator.model, "start", remember)
    for text in ("x" * length for length in range(1, 17)):
        translator.translate([text], Decoding(beam=2, max_length_extra=1, sampling=sampling))
    assert all(said is is_so for said, is_so in told)
    assert {said for said, _ in told} == {True, False}


def test_a_translator_computes_in_the_precision_that_the_model_was_trained_with(
    make_model: MakeModel, tmp_path: Path
) -> None:
    """auto is float32 on a CPU, and its bfloat16 is that of GPUs."""
    folder = shutil.copytree(make_model(1), tmp_path / "model")
    (folder / "recipe.yaml").write_text("train: {steps: 1, precision: bfloat16}")
    translator, seen = Translator.load(folder, "cpu"), set()
    translator.model.encoder[0].feed_forward.inner.register_forward_hook(
        lambda _, __, output: seen.add(output.dtype)
    )
    assert translator.translate(SOURCES, Evaluate()) == TARGETS
    assert seen == {torch.bfloat16}
    seen.clear()
    assert translator.attention(SOURCES[0], TARGETS[0])[2].dtype == np.float32
    assert seen == {torch.bfloat16}
    assert not torch.is_autocast_enabled("cpu")
    for plain in (Translator.load(make_model(1), "cpu"), Translator.load(folder, "cpu", "float32")):
        seen.clear()
        plain.model.encoder[0].feed_forward.inner.register_forward_hook(
            lambda _, __, output: seen.add(output.dtype)
        )
        plain.translate(SOURCES, Evaluate())
        assert seen == {torch.float32}


def test_nothing_is_made_of_nothing(translator: Translator) -> None:
    assert translator.translate([], Evaluate()) == []
    assert translator.translate(["", " \t\n", SOURCES[0], "\u3000"], Evaluate()) == [
        "",
        "",
        TARGETS[0],
        "",
    ]


@settings(max_examples=15)
@given(text=st.text(max_size=40))
def test_any_text_has_a_translation(translator: Translator, text: str) -> None:
    """Newlines, control characters, emoji, and the surrogates that undecodable bytes become."""
    assert len(translator.translate([text], Evaluate(beam=2, max_length_extra=5))) == 1


def test_a_translation_ends_where_the_settings_say(translator: Translator) -> None:
    length = len(translator.tokenizer.encode_batch(SOURCES[:1])[0])
    for factor, extra in [(0.2, 0), (0.2, 3)]:
        limits = Evaluate(max_length_factor=factor, max_length_extra=extra, beam=1)
        [text] = translator.translate(SOURCES[:1], limits)
        [expected] = translator.tokenizer.encode_batch(TARGETS[:1])
        assert (
            text == translator.tokenizer.decode_batch([expected[: int(length * factor) + extra]])[0]
        )


def test_an_endless_sentence_is_translated_too(translator: Translator) -> None:
    endless = " ".join(SOURCES * 40)
    limits = Evaluate(beam=1, max_length_factor=0.01, max_length_extra=10)
    short, long = translator.translate([SOURCES[0], endless], limits)
    assert TARGETS[0].startswith(short)
    assert long


def test_a_model_in_training_stays_in_training(translator: Translator) -> None:
    translator.model.train()
    try:
        assert translator.translate(SOURCES, Evaluate(beam=1)) == TARGETS
        assert translator.model.training
        translator.attention(SOURCES[0], TARGETS[0])
        assert all(module.training for module in translator.model.modules())
    finally:
        translator.model.eval()


def test_attention_says_which_tokens_it_is_about(translator: Translator) -> None:
    source, target, weights = translator.attention(SOURCES[0], TARGETS[0])
    config = translator.model.config
    assert weights.shape == (config.decoder_layers, config.heads, len(target), len(source))
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    assert (source[-1], target[-1]) == ("</s>", "</s>")
    letters = "".join(target[:-1])
    assert [letter for letter in TARGETS[0] if letter.isalpha()] == [
        letter for letter in letters if letter.isalpha() and letter.isascii()
    ]


def test_of_a_long_sentence_only_the_beginning_is_looked_at(translator: Translator) -> None:
    """A picture of 500 by 500 tokens took gigabytes (issue 17, point 2)."""
    source, target = " ".join(SOURCES * 40), " ".join(TARGETS * 40)
    long = translator.attention(source, target)
    begun = translator.attention(source, target, first=7)
    assert len(long[0]) > 100
    assert len(long[1]) > 100
    assert begun[:2] == (long[0][:7], long[1][:7])
    np.testing.assert_allclose(begun[2], long[2][..., :7, :7], atol=1e-6)


def test_another_process_translates_alike(make_model: MakeModel) -> None:
    folder = make_model(3, known=4)
    script = (
        "import json, sys; from heliograph.pipeline.request.decoding import Evaluate; "
        "from heliograph.pipeline.translation.translate import Translator; "
        "found = Translator.load(sys.argv[1]).translate(json.load(sys.stdin), Evaluate()); "
        "print(json.dumps(found))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, folder],
        input=json.dumps(SOURCES),
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == Translator.load(folder).translate(SOURCES, Evaluate())
