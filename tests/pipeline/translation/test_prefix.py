import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heliograph.pipeline.steps.tokenizer import Tokenizer
from heliograph.pipeline.translation.prefix import TextPrefix, TokenBytes


def tokens_of(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode_batch([text])[0]


def follows(prefix: TextPrefix, tokens: list[int]) -> bool:
    """Whether each of the tokens is allowed after those before it."""
    allowed = [prefix.allowed(tokens[:end]) for end in range(len(tokens))]
    return all(a is None or t in a for a, t in zip(allowed, tokens, strict=True))


@pytest.fixture(scope="module")
def token_bytes(tiny_tokenizer: Tokenizer) -> TokenBytes:
    return TokenBytes(tiny_tokenizer)


@settings(max_examples=40)
@given(text=st.text(max_size=12) | st.sampled_from(["Der Hund bellt", "it's  we're 12,5 %"]))
def test_the_usual_tokens_of_a_text_begin_with_each_of_its_beginnings(
    tiny_tokenizer: Tokenizer, token_bytes: TokenBytes, text: str
) -> None:
    for end in range(1, len(text) + 1):
        if text[: end + 1].endswith(("'re", "'ve", "'ll")):
            continue  # "'r" is cut as two words, which "'re" is not; other tokens write it, too
        prefix = TextPrefix(text[:end], tiny_tokenizer, token_bytes)
        tokens = tokens_of(tiny_tokenizer, text)
        assert follows(prefix, tokens), text[:end]
        assert prefix.allowed(tokens) is None


@settings(max_examples=40)
@given(text=st.text(min_size=1, max_size=12), data=st.data())
def test_whatever_is_allowed_begins_with_the_text(
    tiny_tokenizer: Tokenizer, token_bytes: TokenBytes, text: str, data: st.DataObject
) -> None:
    prefix = TextPrefix(text, tiny_tokenizer, token_bytes)
    tokens: list[int] = []
    while (allowed := prefix.allowed(tokens)) is not None:
        assert allowed  # There is always a way on.
        tokens.append(data.draw(st.sampled_from(sorted(allowed))))
    assert len(tokens) <= prefix.longest
    [written] = tiny_tokenizer.decode_batch([tokens])
    assert written.startswith(text)


def test_a_word_may_go_on_where_the_text_breaks_off(
    tiny_tokenizer: Tokenizer, token_bytes: TokenBytes
) -> None:
    whole = tokens_of(tiny_tokenizer, "Der Hund")
    cut = tokens_of(tiny_tokenizer, "Der Hu")
    assert whole[: len(cut)] != cut  # why a prefix is not just its tokens
    prefix = TextPrefix("Der Hu", tiny_tokenizer, token_bytes)
    assert follows(prefix, whole)
    assert follows(prefix, cut)
    assert not follows(prefix, tokens_of(tiny_tokenizer, "Die Hunde"))
    assert prefix.allowed(tokens_of(tiny_tokenizer, "Die")) == []
