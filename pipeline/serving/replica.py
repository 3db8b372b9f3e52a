"""What runs on each replica: one version of the model, and the requests that wait, together.

A replica translates one batch at a time in a thread, while the next batch gathers. Requests of
equal settings are translated as one; a sentence's translation does not depend on the others.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory

import numpy as np
import ray
from numpy.typing import NDArray

from heliograph.pipeline.checkpoints.model_folder import unpack_model
from heliograph.pipeline.request.decoding import Decoding
from heliograph.pipeline.translation.engines import Engine, open_engine
from heliograph.pipeline.translation.translate import RunsModel, Translation, Translator

NAMESPACE = "heliograph"


@dataclass(frozen=True)
class Work:
    """Sentences of one request, and how they are to be translated."""

    sentences: tuple[str, ...]
    settings: Decoding
    prefixes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Done:
    """What became of a `Work`.

    Attributes:
        texts: the best translation of each sentence.
        alternatives: if more than one was asked for, with their scores.
        batch: sentences that the replica translated together; None but for the first of a batch, so
            that each batch is counted once.
    """

    texts: list[str]
    alternatives: list[list[Translation]] | None
    batch: int | None = None


class Shelf:
    """An actor that keeps the files of the versions in use for replicas on any node, also for those
    that start again while the registry is away."""

    def __init__(self) -> None:
        self._files: dict[str, dict[str, bytes]] = {}

    def put(self, name: str, files: dict[str, bytes]) -> None:
        self._files[name] = files

    def take(self, name: str) -> dict[str, bytes]:
        return self._files[name]

    def drop(self, name: str) -> None:
        self._files.pop(name, None)


class Replica:
    """A model on its device.

    Args:
        shelf: the `Shelf`'s name; files: those of the version, there.
        batch: sentences that are translated together.
        wait_seconds: how long an idle replica waits for more of them.
    """

    def __init__(
        self, shelf: str, files: str, engine: Engine, batch: int, wait_seconds: float
    ) -> None:
        self._folder = TemporaryDirectory(prefix="heliograph-")
        keeper = ray.get_actor(shelf, namespace=NAMESPACE)
        unpack_model(ray.get(keeper.take.remote(files)), self._folder.name)
        self._model = open_engine(self._folder.name, engine)
        self._torch = self._model if isinstance(self._model, Translator) else None
        self._gathering = Gathering(
            lambda works: translate_together(self._model, works), batch, wait_seconds
        )
        self._looking = asyncio.Lock()

    async def translate(self, work: Work) -> Done:
        return await self._gathering.add(work)

    async def attention(
        self, source: str, target: str
    ) -> tuple[list[str], list[str], NDArray[np.float32]]:
        """As `Translator.attention`, whichever engine translates."""
        async with self._looking:
            return await asyncio.to_thread(self._attention, source, target)

    def _attention(
        self, source: str, target: str
    ) -> tuple[list[str], list[str], NDArray[np.float32]]:
        if self._torch is None:
            self._torch = Translator.load(self._folder.name)
        return self._torch.attention(source, target)


class Gathering:
    """Works that wait for the one that is being done, in the order of their coming.

    Not Serve's `@batch`: that counts requests, or puts what does not fit any more behind all that
    came later, and it translates for clients that have gone.
    """

    def __init__(
        self, run: Callable[[list[Work]], list[Done | Exception]], size: int, wait_seconds: float
    ) -> None:
        self._run = run
        self._size = size
        self._wait_seconds = wait_seconds
        self._waiting: deque[tuple[Work, asyncio.Future[Done]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def add(self, work: Work) -> Done:
        future: asyncio.Future[Done] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, future))
        if self._task is None:
            self._task = asyncio.create_task(self._work_off())
        return await future

    async def _work_off(self) -> None:
        await asyncio.sleep(self._wait_seconds)
        while batch := self._take():
            results = await asyncio.to_thread(self._run, [work for work, _ in batch])
            for (_, future), result in zip(batch, results, strict=True):
                if future.cancelled():
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)
        self._task = None

    def _take(self) -> list[tuple[Work, "asyncio.Future[Done]"]]:
        """The first ones that are together of the size, at least one; none for clients that have
        gone."""
        batch: list[tuple[Work, asyncio.Future[Done]]] = []
        left = self._size
        while self._waiting:
            work, future = self._waiting[0]
            if not future.cancelled():
                if batch and len(work.sentences) > left:
                    break
                batch.append((work, future))
                left -= len(work.sentences)
            self._waiting.popleft()
        return batch


def translate_together(model: RunsModel, works: Sequence[Work]) -> list[Done | Exception]:
    """Each work's result, in order; those of equal settings are translated as one."""
    alike: dict[tuple[str, bool], list[int]] = {}
    for number, work in enumerate(works):
        key = work.settings.model_dump_json(), work.prefixes is not None
        alike.setdefault(key, []).append(number)
    results: dict[int, Done | Exception] = {}
    for numbers in alike.values():
        group = [works[number] for number in numbers]
        try:
            results |= zip(numbers, _translate_alike(model, group), strict=True)
        except Exception as error:  # the other groups' clients did nothing wrong
            results |= dict.fromkeys(numbers, error)
    first = results[0]
    if isinstance(first, Done):
        results[0] = replace(first, batch=sum(len(work.sentences) for work in works))
    return [results[number] for number in range(len(works))]


def _translate_alike(model: RunsModel, works: Sequence[Work]) -> list[Done]:
    sentences = [sentence for work in works for sentence in work.sentences]
    settings = works[0].settings
    alternatives: list[list[Translation]] | None = None
    if settings.n_best > 1 or works[0].prefixes:
        prefixes = [prefix for work in works for prefix in work.prefixes or ()]
        alternatives = model.alternatives(sentences, settings, prefixes or None)
        texts = [found[0].text if found else "" for found in alternatives]
    else:
        texts = model.translate(sentences, settings)
    done, start = [], 0
    for work in works:
        part = slice(start, start + len(work.sentences))
        done.append(Done(texts[part], alternatives and alternatives[part]))
        start = part.stop
    return done
