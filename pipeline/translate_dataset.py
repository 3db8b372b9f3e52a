"""A data set to a data set, on all nodes of the cluster through Ray Data."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray.data import ActorPoolStrategy

from pipeline.cluster import start_ray
from pipeline.errors import RequestError
from pipeline.model_folder import CONFIG, TOKENIZER, WEIGHTS, read_settings
from pipeline.recipe import Data, Evaluate, Location
from pipeline.registry import fetch_model
from pipeline.source import check_source, read_source
from pipeline.translate import Translator

BATCH_ROWS = 1024
"""Sentences that one actor sorts by length and translates at a time."""


def translate_dataset(
    model: str,
    location: Location,
    output: str,
    source: str = "source",
    target: str | None = None,
    split: str = "test",
) -> int:
    """Translate a column of a data set into a folder of Parquet files, whose names sort in the
    order of the rows.

    Args:
        model: any MODEL, see `model_uri`.
        output: a folder that does not exist yet or is empty, on storage that every node reaches.
        source: the column, or key inside `translation`, that is translated.
        target: a column or key that is kept beside it, such as a reference.

    Returns:
        The number of rows: {source, translation}, or {source, target, translation}. A row whose
        source is missing or not text is kept, with nulls.

    Raises:
        RequestError: model or data are not there, or `output` is in use.
    """
    folder = Path(output).resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RequestError(f"output {output!r} exists already; name a new or empty folder")
    data = Data(train=location, validation=location, source=source, target=target or source)
    check_source(location, data, split)
    model_folder = fetch_model(model)
    start_ray()
    rows, _ = read_source(location, data, split)
    cpus, gpus = (ray.cluster_resources().get(kind, 0) for kind in ("CPU", "GPU"))
    translated = rows.map_batches(
        TranslateRows,
        fn_constructor_args=(_pack(model_folder), read_settings(model_folder), target is not None),
        compute=ActorPoolStrategy(min_size=1, max_size=max(1, int(gpus or cpus))),
        batch_size=BATCH_ROWS,
        batch_format="pyarrow",
        # Half a CPU each: actors that took them all would leave none to read the data with, and
        # both would wait for ever.
        num_cpus=0.5 if cpus >= 2 else 0,
        num_gpus=1 if gpus >= 1 else 0,
    )
    writing = folder.with_name(f".{folder.name}.writing")
    translated.write_parquet(str(writing), mode="overwrite")
    if folder.exists():
        folder.rmdir()
    writing.rename(folder)
    return sum(pq.read_metadata(path).num_rows for path in folder.glob("*.parquet"))


class TranslateRows:
    """An actor of the pool: a translator, loaded once."""

    def __init__(
        self, files: "ray.ObjectRef[dict[str, bytes]]", settings: Evaluate, keep_target: bool
    ) -> None:
        with TemporaryDirectory() as folder:
            for name, content in ray.get(files).items():
                (Path(folder) / name).write_bytes(content)
            self.translator = Translator.load(folder)
        self.settings = settings
        self.columns = ["source", "target"] if keep_target else ["source"]

    def __call__(self, rows: pa.Table) -> pa.Table:
        sources = rows["source"].to_pylist()
        translations = self.translator.translate([text or "" for text in sources], self.settings)
        column = [
            None if source is None else translation
            for source, translation in zip(sources, translations, strict=True)
        ]
        kept = rows.select(self.columns)
        return kept.append_column("translation", pa.array(column, pa.string()))


def _pack(folder: str) -> "ray.ObjectRef[dict[str, bytes]]":
    """The model in Ray's object store: the folder itself may be on this node only."""
    return ray.put(
        {name: (Path(folder) / name).read_bytes() for name in (CONFIG, WEIGHTS, TOKENIZER)}
    )
