import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluate import evaluate
from pipeline.recipe import Evaluate
from pipeline.translate import Translator
from tests.pipeline.conftest import PAIRS, MakeModel

SOURCES = [source for source, _ in PAIRS]
TARGETS = [target for _, target in PAIRS]


@pytest.fixture(scope="module")
def translator(make_model: MakeModel) -> Translator:
    return Translator.load(make_model(1), "cpu")


def test_what_was_learnt_by_heart_is_translated(translator: Translator) -> None:
    assert translator.translate(SOURCES, Evaluate()) == TARGETS
    assert evaluate(translator, PAIRS, Evaluate()).bleu == pytest.approx(100)


@settings(deadline=None, max_examples=15)
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


def test_nothing_is_made_of_nothing(translator: Translator) -> None:
    assert translator.translate([], Evaluate()) == []
    assert translator.translate(["", " \t\n", SOURCES[0], "\u3000"], Evaluate()) == [
        "",
        "",
        TARGETS[0],
        "",
    ]


@settings(deadline=None, max_examples=15)
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


def test_another_process_translates_alike(make_model: MakeModel) -> None:
    folder = make_model(3, known=4)
    script = (
        "import json, sys; from pipeline.recipe import Evaluate; "
        "from pipeline.translate import Translator; "
        "found = Translator.load(sys.argv[1]).translate(json.load(sys.stdin), Evaluate()); "
        "print(json.dumps(found))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, folder],
        input=json.dumps(SOURCES),
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == Translator.load(folder).translate(SOURCES, Evaluate())
