"""A data set to a data set, on all nodes of the cluster through Ray Data.

    a task per file reads      → spans of rows
    an actor per GPU or CPU    → translates a span and writes it, see `translated_rows`
    the driver                 → counts

The driver never sees a row. Which rows a part holds follows from the input, so a start after any
death does what is missing, and any number of workers write the same parts.
"""

import base64
import hashlib
import json
import math
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray.data import ActorPoolStrategy, DataContext, Datasource, ReadTask
from ray.data.block import BlockMetadata

from heliograph.pipeline.bulk.parts import PartsFolder, Span, check_same, cut
from heliograph.pipeline.bulk.progress import RowLine, RowProgress
from heliograph.pipeline.bulk.rows import RowWork, SpanTranslator, pack_span
from heliograph.pipeline.checkpoints.model_folder import (
    RECIPE,
    pack_model,
    read_max_characters,
    read_settings,
)
from heliograph.pipeline.cluster.nodes import check_seen, check_shared
from heliograph.pipeline.cluster.start import capacity, start_ray
from heliograph.pipeline.registry.registry import fetch_model
from heliograph.pipeline.request.data import Data, Location
from heliograph.pipeline.request.decoding import Bulk
from heliograph.pipeline.request.errors import RequestError, one_line
from heliograph.pipeline.request.placement import place_pool
from heliograph.pipeline.request.recipe_file import parse_decoding
from heliograph.pipeline.sources.source import (
    Source,
    check_source,
    describe,
    find_source,
    ordered_context,
)
from heliograph.pipeline.sources.survey import survey
from heliograph.pipeline.steps.pacing import Breather
from heliograph.pipeline.translation.engines import ENGINE, Engine, cpus_per_copy
from heliograph.pipeline.translation.exports import check_export

FORMAT = 1
"""To be raised whenever the same request would give other parts."""
ENDURED_DEATHS = 5
"""So often may an actor die over the same rows, before they are taken for the reason."""

_ACTORS_PER_READER = 8
"""Reading is so much faster than translating."""


def translate_dataset(
    model: str,
    data: Data,
    output: str,
    engine: Engine = ENGINE,
    decoding: Sequence[str] = (),
    bulk: Bulk | None = None,
) -> dict[str, Any]:
    """Translate column `data.source` of `data.validation` into a folder of Parquet files, whose
    names sort in the order of the rows. Every row is kept, with all its columns and those of
    `RowWork.columns`.

    The same request goes on with what it had begun, and does nothing where all is done.

    Args:
        model: any MODEL, see `model_uri`.
        output: a folder or URL that every node reaches: new, empty, or begun by the same request.
        decoding: key=value, what is to be other than the model's own settings.

    Returns:
        {rows, failed: {reason: rows}, parts, output}.

    Raises:
        RequestError: model or data are not there, the model has no export for the engine, `output`
            is in use or was begun otherwise, or a new column's name is taken.
    """
    bulk = bulk or Bulk()
    folder = PartsFolder.at(output)
    manifest = folder.manifest()
    found = find_source(data.validation, data, data.validation_split)
    check_source(found)
    model_folder = fetch_model(model, engine)
    if engine != ENGINE:
        check_export(Path(model_folder), engine)
    content = pack_model(model_folder, engine)
    settings = parse_decoding(read_settings(model_folder), decoding)
    most = bulk.max_characters or read_max_characters(model_folder)
    bulk = bulk.model_copy(update={"max_characters": most})
    work = RowWork(engine, settings, most, bulk.scores, bulk.prefix)
    pins = _pins(found, content, work, bulk)
    if manifest is not None:
        check_same(manifest["pins"], pins, output)
        if (summary := folder.summary()) is not None:
            return summary | {"output": output}
    start_ray(lasting_retries=True)
    check_seen(found.local_files)
    check_shared(output, "output")
    if manifest is None:
        manifest = {"pins": pins} | _look_through(found, data.validation, work, bulk)
        folder.begin(manifest)
    plan = Plan.of(manifest, folder)
    progress = RowProgress(sum(plan.rows), plan.rows_done)
    with RowLine(progress):
        for fact in _translated(found, plan, content, work, folder) if plan.unfinished else []:
            progress.add(fact["rows"], fact["failed"])
    return _finish(folder, plan, output)


def _pins(
    source: Source, content: Mapping[str, bytes], work: RowWork, bulk: Bulk
) -> dict[str, Any]:
    """JSON: what decides the parts, and must be the same for all of them."""
    model = hashlib.sha256()
    for name, data in content.items():
        if name != RECIPE:  # what of it matters is in the settings
            model.update(f"{name}\0{len(data)}\0".encode() + data)
    pins = {
        "format": FORMAT,
        "model": model.hexdigest(),
        "engine": work.engine,
        "decoding": work.settings.model_dump(),
        "input": source.identity,
        **bulk.model_dump(),
    }
    return dict(json.loads(json.dumps(pins)))


def _look_through(source: Source, location: Location, work: RowWork, bulk: Bulk) -> dict[str, Any]:
    """JSON: what the input is, and how it is cut; see `Plan`."""
    print(f"looking through {describe(location)}", file=sys.stderr, flush=True)
    found = survey(source)
    if taken := [name for name in work.columns.names if name in found.schema.names]:
        raise RequestError(
            f"{describe(location)} has a column {taken[0]!r} already: give the new columns' names "
            "a prefix"
        )
    try:
        pq.write_table(found.schema.empty_table(), pa.BufferOutputStream())
    except pa.ArrowException as error:
        raise RequestError(
            f"{describe(location)} has a column that Parquet cannot hold: {one_line(error)}"
        ) from error
    part_rows = bulk.part_rows or min(max(sum(found.rows) // 64, 256), 32_768)
    schema = base64.b64encode(found.schema.serialize()).decode()
    return {"rows": found.rows, "part_rows": part_rows, "schema": schema}


@dataclass(frozen=True)
class Plan:
    """What is to be done, and what was done before."""

    rows: tuple[int, ...]
    """Of each part of the input."""
    part_rows: int
    """Rows of a part of the output, at most."""
    schema: pa.Schema
    """All columns of the input."""
    done: dict[int, set[Span]]

    @classmethod
    def of(cls, manifest: Mapping[str, Any], folder: PartsFolder) -> "Plan":
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(manifest["schema"])))
        return cls(tuple(manifest["rows"]), manifest["part_rows"], schema, folder.done())

    @property
    def rows_done(self) -> int:
        return sum(span.rows for spans in self.done.values() for span in spans)

    @property
    def unfinished(self) -> list[int]:
        """Parts of the input of which rows are missing."""
        return [
            part
            for part, rows in enumerate(self.rows)
            if sum(span.rows for span in self.done.get(part, ())) < rows
        ]


def _translated(
    source: Source, plan: Plan, content: Mapping[str, bytes], work: RowWork, folder: PartsFolder
) -> Iterator[dict[str, Any]]:
    """Translates all that is missing; of each part that was written, how many rows and failures."""
    pool = place_pool(capacity(), cpus_per_copy(work.engine))
    parts, there = len(plan.unfinished), ray.cluster_resources()
    now = there.get("GPU", 0) if pool.gpus else there.get("CPU", 0) / pool.cpus
    threads = cpus_per_copy(work.engine) > 1 and not pool.gpus
    context = ordered_context()
    context.execution_options.preserve_order = False  # the names of the parts do
    context.target_max_block_size = 1  # a block is cut after each row, and a row is a span
    context.custom_execution_callback_classes = [Breather]
    with DataContext.current(context), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of `max_task_retries`, which has no other way in yet
        spans = ray.data.read_datasource(
            _Spans(source, plan),
            num_cpus=0,
            concurrency=min(parts, max(2, pool.actors // _ACTORS_PER_READER)),
            override_num_blocks=parts,
        )
        facts = spans.map_batches(
            SpanTranslator,
            fn_constructor_args=(ray.put(content), work, folder),
            compute=ActorPoolStrategy(
                min_size=1,
                max_size=pool.actors,
                initial_size=max(1, min(pool.actors, math.floor(now))),
                # What waits for one actor cannot go to another that has nothing left to do. But a
                # GPU is so fast that it must not wait; nor must an actor's threads, while a span
                # is tokenized or written.
                max_tasks_in_flight_per_actor=2 if pool.gpus or threads else 1,
                max_concurrent_calls_per_actor=2 if threads else 1,
                enable_true_multi_threading=threads,
            ),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=pool.cpus,
            num_gpus=pool.gpus,
            max_task_retries=ENDURED_DEATHS,
        )
    yield from facts.iter_rows()


class _Spans(Datasource):  # type: ignore[misc]  # Ray has no types
    """The spans that are not done; a task reads a part of the input."""

    def __init__(self, source: Source, plan: Plan) -> None:
        self.source, self.plan = source, plan

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, *_: Any, **__: Any) -> list[ReadTask]:
        work = ray.put((self.source, self.plan))
        unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [ReadTask(partial(_read, work, part), unknown) for part in self.plan.unfinished]


def _read(work: "ray.ObjectRef[tuple[Source, Plan]]", part: int) -> Iterator[pa.Table]:
    source, plan = ray.get(work)
    done = {span.first for span in plan.done.get(part, ())}
    seen = 0
    for first, rows in cut(source.tables(part, plan.schema), plan.part_rows):
        seen = first + rows.num_rows
        if first not in done:
            yield pack_span(Span(part, first, rows.num_rows), rows)
    if seen != plan.rows[part]:
        raise RequestError(
            f"{source.parts[part].entry[0]!r} has {seen} rows, and had {plan.rows[part]} before: "
            "it was changed; translate it into another folder"
        )


def _finish(folder: PartsFolder, plan: Plan, output: str) -> dict[str, Any]:
    """Say that all is done, which is so when all rows are there."""
    done = folder.done()
    spans = [span for part in done.values() for span in part]
    assert sum(span.rows for span in spans) == sum(plan.rows), "rows are missing, or came twice"
    summary = {
        "rows": sum(plan.rows),
        "failed": dict(sorted(folder.failed(spans).items())),
        "parts": len(spans),
        "output": output,
    }
    folder.finish(summary)
    return summary
