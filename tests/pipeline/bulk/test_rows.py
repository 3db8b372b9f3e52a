"""Every row has its translation or its error; a poisonous one harms no other."""

from collections.abc import Sequence

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliograph.pipeline.bulk.parts import Span
from heliograph.pipeline.bulk.rows import (
    Failure,
    RowWork,
    pack_span,
    translate_each,
    translate_rows,
)
from heliograph.pipeline.request.decoding import Decoding, Evaluate
from heliograph.pipeline.sources.whole_rows import no_row
from heliograph.pipeline.translation.translate import Translation, Translator
from tests.pipeline.conftest import PAIRS, MakeModel

WORK = RowWork("torch", Decoding(beam=1), max_characters=100, scores=False, prefix="")


def fragile(texts: Sequence[str]) -> list[str]:
    """Raises for any batch with poison in it."""
    if "poison" in texts:
        raise RuntimeError("does not compute")
    return [text.upper() for text in texts]


@given(st.lists(st.sampled_from(["a", "b", "poison"]), max_size=40))
def test_exactly_the_poisonous_texts_fail(texts: list[str]) -> None:
    failure = Failure("RuntimeError: does not compute")
    expected = [failure if text == "poison" else text.upper() for text in texts]
    assert translate_each(texts, fragile) == expected


def test_few_attempts_are_needed_to_find_it() -> None:
    attempts = []

    def counted(texts: Sequence[str]) -> list[str]:
        attempts.append(len(texts))
        return fragile(texts)

    translate_each(["a"] * 500 + ["poison"] + ["a"] * 523, counted)
    assert len(attempts) < 30
    assert sum(attempts) < 4 * 1024


def test_an_engine_that_is_broken_ends_the_work() -> None:
    """Else a whole data set would be kept as failed."""

    def broken(texts: Sequence[str]) -> list[str]:
        raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(RuntimeError, match="device-side"):
        translate_each(["a", "b", "c"], broken)


class FixedEngine:
    """An engine of two alternatives."""

    def translate(self, sentences: Sequence[str], settings: Evaluate) -> list[str]:  # noqa: ARG002
        return fragile(sentences)

    def alternatives(
        self,
        sentences: Sequence[str],
        settings: Decoding,
        prefixes: Sequence[str] | None = None,  # noqa: ARG002
    ) -> list[list[Translation]]:
        both = [[Translation(text, -0.5), Translation("?", -1.5)] for text in fragile(sentences)]
        return [
            found[: settings.n_best] if text.strip() else []
            for text, found in zip(sentences, both, strict=True)
        ]


def span_rows(texts: list[str | None], problems: list[str | None]) -> pa.Table:
    """As the readers give them, with a column id."""
    row = pa.array([{"id": number} for number in range(len(texts))])
    return pa.table(
        {
            "source": pa.array(texts, pa.string()),
            "problem": pa.array(problems, pa.string()),
            "row": row,
        }
    )


def test_each_row_is_kept_with_what_became_of_it() -> None:
    texts = ["a", None, "x" * 101, "poison", None, ""]
    problems = [None, "missing", None, None, "not_text", None]
    table, failed = translate_rows(span_rows(texts, problems), FixedEngine(), WORK)
    assert table.to_pylist() == [
        {"id": 0, "translation": "A", "error": None},
        {"id": 1, "translation": None, "error": "missing"},
        {"id": 2, "translation": None, "error": "too_long: 101 characters, and at most 100 asked"},
        {"id": 3, "translation": None, "error": "RuntimeError: does not compute"},
        {"id": 4, "translation": None, "error": "not_text"},
        {"id": 5, "translation": "", "error": None},
    ]
    assert failed == {"missing": 1, "too_long": 1, "RuntimeError": 1, "not_text": 1}


def test_alternatives_and_scores_where_they_are_asked_for() -> None:
    work = RowWork("torch", Decoding(beam=2, n_best=2), 100, scores=True, prefix="mt_")
    table, _ = translate_rows(span_rows(["a", " ", None], [None] * 3), FixedEngine(), work)
    both = [{"text": "A", "score": -0.5}, {"text": "?", "score": -1.5}]
    found = [tuple(row.values()) for row in table.to_pylist()]
    assert table.column_names == ["id", "mt_translation", "mt_score", "mt_alternatives", "mt_error"]
    assert found == [
        (0, "A", -0.5, both, None),
        (1, "", None, [], None),
        (2, None, None, None, "missing"),
    ]


def test_a_line_without_cells_has_null_columns() -> None:
    table = span_rows(["a"], [None])
    ragged = pa.table(
        {
            "source": pa.nulls(1, pa.string()),
            "problem": ["ragged"],
            "row": no_row(1, pa.schema(list(table["row"].type))),
        }
    )
    found, _ = translate_rows(pa.concat_tables([table, ragged]), FixedEngine(), WORK)
    assert found.to_pylist()[1] == {"id": None, "translation": None, "error": "ragged"}


def test_a_real_model_translates_them(make_model: MakeModel) -> None:
    sources = [source for source, _ in PAIRS]
    engine = Translator.load(make_model(1))
    table, failed = translate_rows(span_rows(sources, [None] * len(PAIRS)), engine, WORK)
    assert table["translation"].to_pylist() == [target for _, target in PAIRS]
    assert not failed


def test_a_packed_span_is_one_row() -> None:
    packed = pack_span(Span(1, 20, 2), span_rows(["a", "b"], [None, None]))
    assert packed.num_rows == 1
    with pa.ipc.open_stream(packed["rows"][0].as_py()) as reader:
        assert reader.read_all()["source"].to_pylist() == ["a", "b"]
