"""One span of a data set: all its rows, each with its translation or why there is none.

`error` is null, or

missing, not_text, ragged    see `rows`
too_long: …                  more characters than were asked for
anything else                what the engine raised for this row alone
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pyarrow as pa
import ray

from heliograph.pipeline.bulk.parts import PartsFolder, Span
from heliograph.pipeline.checkpoints.model_folder import unpack_model
from heliograph.pipeline.request.decoding import Decoding
from heliograph.pipeline.request.errors import one_line
from heliograph.pipeline.sources.whole_rows import ROW
from heliograph.pipeline.translation.engines import Engine, open_engine
from heliograph.pipeline.translation.translate import RunsModel, Translation

_PROBE = "."
"""What a sound engine translates without an error, whatever the model."""

T = TypeVar("T")


@dataclass(frozen=True)
class RowWork:
    """What is done to each row."""

    engine: Engine
    settings: Decoding
    max_characters: int
    scores: bool
    """Whether the score is wanted as well."""
    prefix: str
    """In front of the new columns' names."""

    @property
    def with_scores(self) -> bool:
        return self.scores or self.settings.n_best > 1 or self.settings.sampling is not None

    @property
    def columns(self) -> pa.Schema:
        """Those that are added: {translation, score, alternatives, error}, of which score and
        alternatives only where they are wanted. `alternatives` has the best one, too."""
        fields = [("translation", pa.string())]
        if self.with_scores:
            fields.append(("score", pa.float32()))
        if self.settings.n_best > 1:
            one = pa.struct([("text", pa.string()), ("score", pa.float32())])
            fields.append(("alternatives", pa.list_(one)))
        fields.append(("error", pa.string()))
        return pa.schema([(self.prefix + name, kind) for name, kind in fields])


@dataclass(frozen=True)
class Failure:
    """Why a row has no translation."""

    reason: str


def pack_span(span: Span, rows: pa.Table) -> pa.Table:
    """The span as one row, which Ray Data neither cuts nor joins with others."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    content = pa.array([sink.getvalue().to_pybytes()], pa.large_binary())
    return pa.table({"part": [span.part], "first": [span.first], "rows": content})


class SpanTranslator:
    """An actor of the pool: an engine, loaded once. It writes what it has translated."""

    def __init__(
        self, files: "ray.ObjectRef[dict[str, bytes]]", work: RowWork, output: PartsFolder
    ) -> None:
        self._folder = TemporaryDirectory()  # as long as the actor, for an engine may read it later
        unpack_model(ray.get(files), self._folder.name)
        self.engine = open_engine(self._folder.name, work.engine)
        self.work, self.output = work, output

    def __call__(self, packed: pa.Table) -> pa.Table:
        """What `pack_span` gave → {part, first, rows, failed} of what was written."""
        facts = []
        for row in packed.to_pylist():
            with pa.ipc.open_stream(row["rows"]) as reader:
                rows = reader.read_all()
            span = Span(row["part"], row["first"], rows.num_rows)
            table, failed = translate_rows(rows, self.engine, self.work)
            self.output.write(span, table, failed)
            facts.append(span._asdict() | {"failed": sum(failed.values())})
        return pa.Table.from_pylist(facts)


def translate_rows(
    rows: pa.Table, engine: RunsModel, work: RowWork
) -> tuple[pa.Table, Counter[str]]:
    """A table of `rows` with the column `row` → all columns that `row` holds and those of
    `work.columns`, and the failures by reason.

    Raises:
        Exception: the engine's, if it does not translate anything any more.
    """
    texts, problems = rows["source"].to_pylist(), rows["problem"].to_pylist()
    found: list[list[Translation] | Failure] = [
        Failure(problem or "missing")
        if text is None
        else Failure(f"too_long: {len(text)} characters, and at most {work.max_characters} asked")
        for text, problem in zip(texts, problems, strict=True)
    ]
    wanted = [
        number
        for number, text in enumerate(texts)
        if text is not None and len(text) <= work.max_characters
    ]
    results = translate_each([texts[n] for n in wanted], _translation(engine, work))
    for number, result in zip(wanted, results, strict=True):
        found[number] = result
    added = pa.Table.from_pylist([_values(each, work) for each in found], work.columns)
    kept = pa.schema(list(rows[ROW].type))
    table = pa.Table.from_arrays(rows[ROW].flatten(), schema=kept)
    for field in work.columns:
        table = table.append_column(field, added[field.name])
    reasons = (each.reason.partition(":")[0] for each in found if isinstance(each, Failure))
    return table, Counter(reasons)


def translate_each(
    texts: Sequence[str], translate: Callable[[Sequence[str]], Sequence[T]]
) -> list[T | Failure]:
    """All texts' translations; if that raises, those of each half, and so on, until the texts that
    are to blame stand alone.

    Raises:
        Exception: what `translate` raised, if it cannot translate anything any more.
    """
    if not texts:
        return []
    try:
        return list(translate(texts))
    except Exception as error:
        if len(texts) == 1:
            translate([_PROBE])  # raises, if it is not the text that is to blame
            return [Failure(f"{type(error).__name__}: {one_line(error)}")]
    middle = len(texts) // 2
    return translate_each(texts[:middle], translate) + translate_each(texts[middle:], translate)


def _translation(
    engine: RunsModel, work: RowWork
) -> Callable[[Sequence[str]], list[list[Translation]]]:
    """Each text's translations, the best first."""
    if work.with_scores:
        return lambda texts: engine.alternatives(texts, work.settings)
    return lambda texts: [[Translation(t, 0.0)] for t in engine.translate(texts, work.settings)]


def _values(found: list[Translation] | Failure, work: RowWork) -> dict[str, Any]:
    """One row of `work.columns`."""
    if isinstance(found, Failure):
        return {f"{work.prefix}error": found.reason}
    best = found[0] if found else Translation("", 0.0)  # of nothing but white space: nothing
    values = {
        "translation": best.text,
        "score": best.score if found else None,
        "alternatives": [{"text": each.text, "score": each.score} for each in found],
    }
    return {f"{work.prefix}{name}": value for name, value in values.items()}
