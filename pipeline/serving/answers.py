"""The server's answers to translate, attention and readiness; how many may wait for one."""

import asyncio
import math
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request

from heliograph.pipeline.serving.limits import Limits
from heliograph.pipeline.serving.metrics import Metrics
from heliograph.pipeline.serving.replica import Done
from heliograph.pipeline.serving.requests import (
    AttentionBody,
    Refused,
    TranslateBody,
    check_text,
    check_tokens,
    plan_work,
    read_body,
    wait_until_gone,
)
from heliograph.pipeline.serving.versions import NoReplica, Rotation, Version

CLIENT_GONE = 499
"""The status that is counted, as proxies do, for a client that hung up before its answer."""

Answered = TypeVar("Answered")


class Answer(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class Alternative(Answer):
    text: str
    score: float
    """Log-probability / tokens ** length penalty, the end counted."""


class Translated(Answer):
    text: str
    alternatives: list[Alternative] | None = None
    """Where more than one was asked for, the best first."""


class Model(Answer):
    name: str
    """MODEL, as the server was started with it."""
    version: int | None
    """The version that answered."""


class Translations(Answer):
    translations: list[Translated]
    """One for each text, in their order."""
    model: Model


class Attention(Answer):
    source: list[str]
    target: list[str]
    weights: list[list[list[list[float]]]]
    """By layer, head, target token and source token; each target token's sum to 1."""
    model: Model


class Readiness(Answer):
    ready: bool
    version: int | None
    replicas: int
    """That run."""
    trouble: str | None
    """What keeps the server from the version that the alias names."""


class Queue:
    """Counts the texts that wait or are being translated, and refuses what would be too many."""

    def __init__(self, size: int) -> None:
        self.waiting = 0
        self._size = size
        self._pace = 1.0
        """Texts a second, as lately seen."""

    def check(self, texts: int = 1) -> None:
        """Raises Refused, with the seconds after which there may be room."""
        if self.waiting + texts > self._size:
            seconds = min(60, max(1, math.ceil(self.waiting / self._pace)))
            message = f"the queue is full: {self.waiting} of at most {self._size} texts wait"
            raise Refused(429, message, Retry_After=str(seconds))

    @contextmanager
    def place_for(self, texts: int) -> Iterator[None]:
        """Raises Refused, as `check`."""
        self.check(texts)
        self.waiting += texts
        before, start = self.waiting, time.monotonic()
        try:
            yield
        finally:
            self.waiting -= texts
            pace = before / max(time.monotonic() - start, 1e-3)
            self._pace += 0.1 * (max(pace, 1.0) - self._pace)


class Service:
    """What the paths of the interface do."""

    def __init__(self, rotation: Rotation, limits: Limits, queue: Queue, metrics: Metrics) -> None:
        self._rotation = rotation
        self._limits = limits
        self._queue = queue
        self._metrics = metrics

    async def translate(self, request: Request) -> Translations:
        self._queue.check()  # before the body costs anything
        body = await read_body(request, TranslateBody, self._limits)
        async with self._rotation.use() as version:
            work, tokens = plan_work(body, version.settings, version.tokenizer, self._limits)
            with self._queue.place_for(len(work.sentences)):
                done = await self._in_time(request, version.translate(work, self._metrics))
            self._count(done, tokens, version)
            return Translations(translations=_translated(done), model=self._model(version))

    async def attention(self, request: Request) -> Attention:
        self._queue.check()
        body = await read_body(request, AttentionBody, self._limits)
        check_text("source", body.source, self._limits)
        check_text("target", body.target, self._limits)
        async with self._rotation.use() as version:
            check_tokens("source", [body.source], version.tokenizer, self._limits)
            # A model may well write more tokens than it read.
            more = self._limits.model_copy(update={"tokens": 2 * self._limits.tokens})
            check_tokens("target", [body.target], version.tokenizer, more)
            with self._queue.place_for(1):
                looked = version.attention(body.source, body.target, self._metrics)
                source, target, weights = await self._in_time(request, looked)
            model = self._model(version)
        rounded = [[[[round(w, 4) for w in row] for row in head] for head in layer]
                   for layer in weights.tolist()]  # fmt: skip
        return Attention(source=source, target=target, weights=rounded, model=model)

    async def readiness(self) -> Readiness:
        rotation = self._rotation
        return Readiness(
            ready=rotation.replicas > 0,
            version=rotation.current.number,
            replicas=rotation.replicas,
            trouble=rotation.trouble,
        )

    async def _in_time(self, request: Request, work: Coroutine[Any, Any, Answered]) -> Answered:
        """What `work` returns; it is given up when the client hangs up, or after too long.

        Raises:
            Refused: it was given up.
        """
        task = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(wait_until_gone(request))
        try:
            await asyncio.wait(
                {task, gone}, timeout=self._limits.seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if task.done():
                return await task
            if gone.done():
                raise Refused(CLIENT_GONE, "the client has gone")
            raise Refused(504, f"no answer within {self._limits.seconds:g} s", Retry_After="5")
        except NoReplica:
            raise Refused(503, "no replica runs at the moment", Retry_After="5") from None
        finally:
            task.cancel()
            gone.cancel()

    def _model(self, version: Version) -> Model:
        return Model(name=self._rotation.model, version=version.number)

    def _count(self, done: Done, source_tokens: int, version: Version) -> None:
        self._metrics.sentences.inc(len(done.texts))
        self._metrics.tokens.labels("source").inc(source_tokens)
        written = version.tokenizer.encode_batch(done.texts)
        self._metrics.tokens.labels("target").inc(sum(map(len, written)))
        if done.batch:
            self._metrics.batch.observe(done.batch)


def _translated(done: Done) -> list[Translated]:
    if done.alternatives is None:
        return [Translated(text=text) for text in done.texts]
    return [
        Translated(
            text=text,
            alternatives=[Alternative(text=each.text, score=each.score) for each in found],
        )
        for text, found in zip(done.texts, done.alternatives, strict=True)
    ]
