"""Whatever a client sends is work within the limits, or refused with a reason."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from heliograph.pipeline.request.decoding import Evaluate
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.serving.limits import Limits, read_limits
from heliograph.pipeline.serving.requests import Refused, TranslateBody, plan_work, read_body
from heliograph.pipeline.steps.tokenizer import Tokenizer

LIMITS = Limits(sentences=4, characters=40, tokens=30, body_bytes=1024, beam=6, queue=8)
SCORED = Evaluate(beam=5, length_penalty=0.7, tokens_per_batch=123)


def request(data: bytes, pieces: int = 1) -> Request:
    size = -(-len(data) // pieces) or 1
    parts = [data[n : n + size] for n in range(0, len(data), size)] or [b""]
    messages = [
        {"type": "http.request", "body": part, "more_body": number < len(parts)}
        for number, part in enumerate(parts, 1)
    ]

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    headers = [(b"content-type", b"application/json")]
    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


def read(data: bytes, pieces: int = 1) -> TranslateBody:
    return asyncio.run(read_body(request(data, pieces), TranslateBody, LIMITS))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=60),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)
bodies = st.binary(max_size=1500) | (
    st.fixed_dictionaries(
        {"text": st.text(max_size=60) | st.lists(st.text(max_size=60), max_size=6) | json_values},
        optional={
            key: st.integers(-2, 9) | json_values
            for key in ("alternatives", "beam", "length_penalty", "no_repeat_ngram", "prefix", "x")
        },
    ).map(lambda tree: json.dumps(tree).encode())
)


@given(bodies, st.integers(1, 4))
def test_anything_is_work_or_refused(tiny_tokenizer: Tokenizer, data: bytes, pieces: int) -> None:
    try:
        body = read(data, pieces)
        work, tokens = plan_work(body, SCORED, tiny_tokenizer, LIMITS)
    except Refused as refused:
        assert_is_clear(refused)
        return
    assert 1 <= len(work.sentences) <= LIMITS.sentences
    assert tokens <= LIMITS.tokens * LIMITS.sentences
    assert work.settings.beam <= LIMITS.beam
    assert work.settings.n_best <= work.settings.beam
    assert all(len(sentence) <= LIMITS.characters for sentence in work.sentences)
    assert all(len(prefix) <= LIMITS.characters for prefix in work.prefixes or ())


def assert_is_clear(refused: Refused) -> None:
    assert 400 <= refused.status < 500
    assert refused.message.isprintable()


def test_what_is_left_out_is_as_the_model_was_scored(tiny_tokenizer: Tokenizer) -> None:
    work, _ = plan_work(read(b'{"text": "a"}'), SCORED, tiny_tokenizer, LIMITS)
    assert Evaluate(**work.settings.model_dump(include=set(Evaluate.model_fields))) == SCORED
    given_ = b'{"text": "a", "beam": 2, "length_penalty": 0, "alternatives": 2, "prefix": "b"}'
    work, _ = plan_work(read(given_), SCORED, tiny_tokenizer, LIMITS)
    assert (work.settings.beam, work.settings.length_penalty, work.settings.n_best) == (2, 0, 2)
    assert work.settings.tokens_per_batch == SCORED.tokens_per_batch
    assert work.prefixes == ("b",)


def test_text_is_taken_as_it_is(tiny_tokenizer: Tokenizer) -> None:
    text = "Zürich\t→ 東京 \U0001f600 \u2028 \u202e"
    body = read(json.dumps({"text": text}).encode())
    assert plan_work(body, SCORED, tiny_tokenizer, LIMITS)[0].sentences == (text,)


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"beam": 100}, "--beam 100: .*less than or equal to 64"),
        ({"batch": 0}, "--batch 0: .*greater than or equal to 1"),
        ({"sentences": 300}, "--queue 128: .*at least 300"),
    ],
)
def test_limits_that_cannot_be(given_: dict[str, int], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        read_limits(**given_)
