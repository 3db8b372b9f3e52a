"""Requests to the server: read within bounds, checked, or refused with the reason."""

import asyncio
import unicodedata
from collections.abc import Sequence
from typing import Annotated, Any, Protocol, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
)
from starlette.requests import ClientDisconnect, Request

from heliograph.pipeline.request.decoding import Decoding, Search
from heliograph.pipeline.serving.limits import Limits
from heliograph.pipeline.serving.replica import Work

DISCARDED_BYTES = 16 * 2**20
"""So much of a body that is too large is still read, and thrown away: a client that is cut off
while it sends never sees why."""


class Refused(Exception):
    """The answer to a request that cannot be served."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


_ONE_OR_MANY = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
Texts = Annotated[
    list[str], Field(min_length=1), BeforeValidator(_as_list), WithJsonSchema(_ONE_OR_MANY)
]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class TranslateBody(Body):
    """What is to be translated, and how. What is left out is as the model was scored."""

    text: Texts
    """One sentence, or a list of them. White space alone is translated by nothing."""
    alternatives: int = Field(1, ge=1)
    """Translations of each sentence, the best first; at most `beam`."""
    beam: int | None = Field(None, ge=1)
    """Hypotheses that are kept while searching."""
    length_penalty: float | None = Field(None, ge=0, le=10)
    """Hypotheses are ranked by log-probability / length ** this."""
    no_repeat_ngram: int | None = Field(None, ge=0, le=100)
    """No sequence of this many tokens comes twice. 0: any may."""
    prefix: Texts | None = None
    """What each translation has to begin with: one for all, or one for each."""


class AttentionBody(Body):
    """A sentence and a translation of it."""

    source: str
    target: str


AnyBody = TypeVar("AnyBody", bound=Body)


class CountsTokens(Protocol):
    """What a tokenizer does here."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]: ...


async def read_body(request: Request, kind: type[AnyBody], limits: Limits) -> AnyBody:
    """The request's JSON body, bounded while it is read.

    Raises:
        Refused: it is of another type, too large, too slow, no JSON, or not of that kind.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        # Also what keeps other sites' pages from using a visitor's browser to ask this server.
        raise Refused(415, f"content-type {content_type!r} is not taken; send application/json")
    try:
        async with asyncio.timeout(limits.read_seconds):
            data = await _read_bounded(request, limits.body_bytes)
    except TimeoutError:
        message = f"the body did not come within {limits.read_seconds:g} s"
        raise Refused(408, message, connection="close") from None
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise _refusal(error) from None


async def _read_bounded(request: Request, limit: int) -> bytes:
    """The body; raises Refused when it is larger than the limit."""
    announced = request.headers.get("content-length", "")
    size = int(announced) if announced.isdecimal() and len(announced) < 16 else 0
    waits = request.headers.get("expect", "").lower() == "100-continue"
    kept, length = bytearray(), size if size > limit else 0
    if size <= DISCARDED_BYTES and not (waits and size > limit):
        length = 0
        async for chunk in request.stream():
            length += len(chunk)
            if length > DISCARDED_BYTES:
                break
            if length <= limit:
                kept += chunk
    if length > limit:
        message = f"the body has more than {limit} bytes; send fewer sentences at a time"
        raise Refused(413, message, connection="close")
    return bytes(kept)


def _refusal(error: ValidationError) -> Refused:
    """The first mistake, without the input itself, which may be anything."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    if first["type"] == "json_invalid":
        return Refused(400, f"the body is no JSON: {first['ctx']['error']}")
    if first["type"] == "extra_forbidden":
        return Refused(422, f"{printable(place)}: unknown key")
    return Refused(422, f"{printable(place) or 'body'}: {first['msg']}")


def printable(text: str) -> str:
    """At most 100 characters of a client's own text, none of them invisible."""
    return text[:100].encode("unicode_escape").decode()


def plan_work(
    body: TranslateBody, scored_with: Search, tokenizer: CountsTokens, limits: Limits
) -> tuple[Work, int]:
    """What a replica is asked to do, and the source tokens of it.

    Raises:
        Refused: it is beyond a limit.
    """
    if len(body.text) > limits.sentences:
        raise Refused(
            413, f"text: {len(body.text)} sentences; at most {limits.sentences} in one request"
        )
    for number, text in enumerate(body.text):
        check_text(f"text.{number}", text, limits)
    prefixes = _prefixes(body, limits)
    lengths = check_tokens("text", body.text, tokenizer, limits)
    if prefixes:
        check_tokens("prefix", prefixes, tokenizer, limits)
    return Work(tuple(body.text), _settings(body, scored_with, limits), prefixes), sum(lengths)


def check_tokens(
    place: str, texts: Sequence[str], tokenizer: CountsTokens, limits: Limits
) -> list[int]:
    """Tokens of each text; raises Refused when one has too many."""
    lengths = [len(tokens) for tokens in tokenizer.encode_batch(texts)]
    for number, length in enumerate(lengths):
        if length > limits.tokens:
            raise Refused(413, f"{place}.{number}: {length} tokens; at most {limits.tokens}")
    return lengths


def check_text(place: str, text: str, limits: Limits) -> None:
    """Raises Refused when a text is too long, or holds what is no text."""
    if len(text) > limits.characters:
        raise Refused(413, f"{place}: {len(text)} characters; at most {limits.characters}")
    if text.isprintable():
        return  # at once, what nearly all texts are
    for position, character in enumerate(text):
        if unicodedata.category(character) in ("Cc", "Cs") and character != "\t":
            hint = "; send each line as a text of its own" if character in "\r\n" else ""
            raise Refused(
                422,
                f"{place}: control character U+{ord(character):04X} at {position}{hint}",
            )


def _prefixes(body: TranslateBody, limits: Limits) -> tuple[str, ...] | None:
    if body.prefix is None:
        return None
    if len(body.prefix) not in (1, len(body.text)):
        raise Refused(
            422, f"prefix: {len(body.prefix)} for {len(body.text)} texts; give one, or one for each"
        )
    for number, prefix in enumerate(body.prefix):
        check_text(f"prefix.{number}", prefix, limits)
    return tuple(body.prefix if len(body.prefix) > 1 else body.prefix * len(body.text))


def _settings(body: TranslateBody, scored_with: Search, limits: Limits) -> Decoding:
    for name in ("beam", "alternatives"):
        value = getattr(body, name)
        if value is not None and value > limits.beam:
            raise Refused(422, f"{name}: {printable(str(value))}; at most {limits.beam}")
    asked = body.model_dump(
        include={"beam", "length_penalty", "no_repeat_ngram"}, exclude_none=True
    )
    settings = Decoding.like(scored_with, **asked)
    if body.alternatives > settings.beam:
        raise Refused(
            422, f"alternatives: {body.alternatives}; at most beam, which is {settings.beam}"
        )
    return Decoding.like(settings, n_best=body.alternatives)


async def wait_until_gone(request: Request) -> None:
    """Until the client has hung up; the body must have been read."""
    while True:
        try:
            if (await request.receive())["type"] == "http.disconnect":
                return
        except ClientDisconnect:
            return
