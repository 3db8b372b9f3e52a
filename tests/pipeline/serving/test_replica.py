"""Requests translated together: the same answers, in the order of their coming, each its own."""

import asyncio
import threading

import pytest

from heliograph.pipeline.request.decoding import Decoding
from heliograph.pipeline.serving.replica import Done, Gathering, Work, translate_together
from heliograph.pipeline.translation.translate import Translator
from tests.pipeline.conftest import PAIRS, MakeModel
from tests.waiting import DEADLINE

GREEDY, WIDE = Decoding(beam=1), Decoding(beam=4)
SENTENCES = [source for source, _ in PAIRS]


@pytest.fixture(scope="module")
def translator(make_model: MakeModel) -> Translator:
    return Translator.load(make_model(1), "cpu")


def done(results: list[Done | Exception]) -> list[Done]:
    assert all(isinstance(result, Done) for result in results), results
    return [result for result in results if isinstance(result, Done)]


def test_company_changes_no_answer(translator: Translator) -> None:
    texts = [*SENTENCES, "Something it has never seen, with 3 numbers 4 5!", " ", "a"]
    works = [
        Work(tuple(texts[n : n + size]), settings)
        for settings in (GREEDY, WIDE)
        for size in (1, 2, 5)
        for n in range(0, len(texts), size)
    ]
    alone = [done(translate_together(translator, [work]))[0].texts for work in works]
    together = [result.texts for result in done(translate_together(translator, works))]
    backwards = [result.texts for result in done(translate_together(translator, works[::-1]))]
    assert together == alone
    assert backwards[::-1] == alone


def test_each_batch_is_counted_once(translator: Translator) -> None:
    works = [Work(("a", "b"), GREEDY), Work(("c",), WIDE), Work(("d",), GREEDY)]
    assert [result.batch for result in done(translate_together(translator, works))] == [
        4,
        None,
        None,
    ]


def test_what_fails_is_what_asked_for_it(
    translator: Translator, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = translator.translate

    def fail_wide(sentences: list[str], settings: Decoding) -> list[str]:
        if settings.beam == WIDE.beam:
            raise MemoryError("too wide")
        return whole(sentences, settings)

    monkeypatch.setattr(translator, "translate", fail_wide)
    first, second = translate_together(
        translator, [Work((SENTENCES[0],), WIDE), Work((SENTENCES[0],), GREEDY)]
    )
    assert isinstance(first, MemoryError)
    assert isinstance(second, Done)
    assert second.texts == [PAIRS[0][1]]


class Recorder:
    """Notes which sentences came together; each batch waits until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.go = threading.Event()

    def __call__(self, works: list[Work]) -> list[Done | Exception]:
        self.batches.append([sentence for work in works for sentence in work.sentences])
        self.go.wait(DEADLINE)
        return [Done(list(work.sentences), None) for work in works]


def test_works_are_taken_in_order_as_many_as_fit() -> None:
    """One that does not fit is first in the next batch: smaller ones never pass it."""
    recorder = Recorder()

    async def main() -> list[Done]:
        gathering = Gathering(recorder, 4, 0.0)
        sizes = [1, 2, 3, 1, 9, 1]
        names = iter("abcdefghijklmnopq")
        works = [Work(tuple(next(names) for _ in range(size)), GREEDY) for size in sizes]
        tasks = [asyncio.create_task(gathering.add(work)) for work in works]
        recorder.go.set()
        return await asyncio.gather(*tasks)

    answers = asyncio.run(main())
    assert ["".join(answer.texts) for answer in answers] == [
        "a", "bc", "def", "g", "hijklmnop", "q"
    ]  # fmt: skip
    assert ["".join(batch) for batch in recorder.batches] == ["abc", "defg", "hijklmnop", "q"]


def test_nothing_is_translated_for_clients_that_have_gone() -> None:
    recorder = Recorder()

    async def main() -> None:
        gathering = Gathering(recorder, 1, 0.0)
        tasks = [asyncio.create_task(gathering.add(Work((name,), GREEDY))) for name in "abc"]
        while not recorder.batches:
            await asyncio.sleep(0.01)
        tasks[0].cancel()  # which is being translated
        tasks[1].cancel()  # which waits
        await asyncio.sleep(0)
        recorder.go.set()
        assert (await tasks[2]).texts == ["c"]
        assert (await gathering.add(Work(("d",), GREEDY))).texts == ["d"]

    asyncio.run(main())
    assert recorder.batches == [["a"], ["c"], ["d"]]
