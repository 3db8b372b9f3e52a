"""Other data under the same recipe are another job."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from heliograph.pipeline.corpus.found_data import find_recipe_data
from heliograph.pipeline.corpus.mixture import Mixture
from heliograph.pipeline.job.data import check_contents, check_sources, has_begun
from heliograph.pipeline.request import recipe
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.request.recipe import Recipe
from heliograph.pipeline.request.recipe_file import parse_recipe
from heliograph.pipeline.steps.prepare import Prepared
from heliograph.pipeline.steps.tokenizer import train_tokenizer
from tests.pipeline.pairs import PAIRS, jsonl
from tests.pipeline.small_corpus import write_corpus

Start = Callable[[], bool]


@pytest.fixture
def job(tmp_path: Path) -> Recipe:
    """On two files."""
    for name, pairs in (("train", PAIRS * 20), ("validation", PAIRS)):
        (tmp_path / f"{name}.jsonl").write_bytes(jsonl(pairs))
    data = {key: str(tmp_path / f"{key}.jsonl") for key in ("train", "validation")}
    data |= {"source": "en", "target": "de"}
    return parse_recipe({"name": "job", "data": data, "train": {"steps": 2}})


@pytest.fixture
def start(job: Recipe, tmp_path: Path) -> Start:
    """What each start of the job does before it trains; whether its sources were untouched."""

    def start() -> bool:
        folder, number = str(tmp_path / "job"), len(list(tmp_path.glob("start-*")))
        found = find_recipe_data(job.data, str(tmp_path / "storage"))
        untouched = check_sources(folder, found, "job-1")
        here = tmp_path / f"start-{number}"
        train, validation = (
            write_corpus(here / key, eval_lines(tmp_path / f"{key}.jsonl"), 10)
            for key in ("train", "validation")
        )
        texts = Mixture((train,), (1.0,))
        config = recipe.Tokenizer(vocabulary_size=300)
        tokenizer = train_tokenizer(texts, config, str(here), None)
        check_contents(folder, found, Prepared(texts, validation, None, tokenizer, None), "job-1")
        return untouched

    return start


def eval_lines(path: Path) -> list[tuple[str, str]]:
    return [(line, line) for line in path.read_text().splitlines()]


def test_the_same_data_go_on(start: Start, tmp_path: Path) -> None:
    assert not has_begun(str(tmp_path / "job"))
    assert start()
    assert has_begun(str(tmp_path / "job"))
    assert start()


def test_a_file_that_was_only_touched_goes_on_after_a_look_into_it(
    start: Start, tmp_path: Path
) -> None:
    start()
    os.utime(tmp_path / "train.jsonl", (1, 1))
    assert not start()


@pytest.mark.parametrize("key", ["train", "validation"])
def test_a_file_of_another_size_is_refused_before_it_is_read(
    start: Start, tmp_path: Path, key: str
) -> None:
    start()
    (tmp_path / f"{key}.jsonl").write_bytes(jsonl(PAIRS * 3))
    with pytest.raises(RequestError, match=rf"^data\.{key} is no longer .* bytes, now .*--new"):
        start()
    assert len(list(tmp_path.glob("start-*"))) == 1  # nothing was prepared


@pytest.mark.parametrize("key", ["train", "validation"])
def test_a_file_of_other_content_and_the_same_size_is_refused(
    start: Start, tmp_path: Path, key: str
) -> None:
    start()
    path = tmp_path / f"{key}.jsonl"
    path.write_text(path.read_text().replace("dog", "cat"))
    with pytest.raises(RequestError, match=rf"^data\.{key} .*is no longer .*sha256.*--new"):
        start()


def test_another_tokenizer_is_refused(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its ids mean other tokens than the weights have learned."""
    start()
    monkeypatch.setattr(
        "heliograph.pipeline.job.data.Tokenizer.digest", property(lambda _: "another"), raising=True
    )
    with pytest.raises(RequestError, match=r"^tokenizer is no longer"):
        start()
