"""Every kind of location, read for real; every mistake, answered in words."""

import bz2
import gzip
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import grammar, source
from pipeline.errors import RequestError
from pipeline.files import HUB_SECONDS
from pipeline.recipe import Data, Location, PairOfFiles
from pipeline.source import check_source, find_source, read_source
from tests.pipeline.hub import Hub, serve_hub

ROOT = Path(__file__).parents[2]
PAIRS = [("a dog", "ein Hund"), ('it says "hi", 5 times', "es sagt, „hallo“"), ("1984", "NULL")]
Row = tuple[str | None, str | None, str | None]


def data(**values: Any) -> Data:
    return Data(**{"train": "-", "validation": "-", "source": "en", "target": "de"} | values)


def rows(location: Location, split: str = "train", **values: Any) -> list[Row]:
    """All rows of the location, after the check that comes before."""
    check_source(location, data(**values), split)
    found = find_source(location, data(**values), split)
    return [
        (row["source"], row["target"], row["problem"])
        for part in range(len(found.parts))
        for table in found.tables(part)
        for row in table.to_pylist()
    ]


def good(pairs: Sequence[tuple[str, str]]) -> list[Row]:
    return [(*pair, None) for pair in pairs]


def jsonl(pairs: Sequence[tuple[Any, Any]]) -> bytes:
    return b"".join(json.dumps({"en": en, "de": de}).encode() + b"\n" for en, de in pairs)


def parquet(pairs: Sequence[tuple[Any, Any]], nested: bool = False, groups: int = 1000) -> bytes:
    plain = [{"en": en, "de": de} for en, de in pairs]
    table = pa.Table.from_pylist([{"translation": row} for row in plain] if nested else plain)
    pq.write_table(table, buffer := io.BytesIO(), row_group_size=groups)
    return buffer.getvalue()


CSV = (
    'de,id,en\nein Hund,1,a dog\n"es sagt, „hallo“",2,"it says ""hi"", 5 times"\nNULL,3,1984\n'
).encode()
TSV = 'en\tde\na dog\tein Hund\nit says "hi", 5 times\tes sagt, „hallo“\n1984\tNULL\n'.encode()
FORMATS = {
    "pairs.parquet": parquet(PAIRS),
    "nested.parquet": parquet(PAIRS, nested=True),
    "pairs.jsonl": jsonl(PAIRS),
    "pairs.json": jsonl(PAIRS),
    "nested.jsonl": b"".join(
        json.dumps({"id": 1, "translation": {"en": en, "de": de}}).encode() + b"\n\n"
        for en, de in PAIRS
    ),
    "pairs.jsonl.gz": gzip.compress(jsonl(PAIRS)),
    "pairs.csv": CSV,
    "bom.csv": b"\xef\xbb\xbf" + CSV,
    "pairs.csv.bz2": bz2.compress(CSV),
    "pairs.tsv": TSV,
    "pairs.tsv.gz": gzip.compress(TSV),
}


# --- What is read -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(FORMATS[name])
    assert rows(str(tmp_path / name)) == good(PAIRS)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_pair_of_files_goes_line_by_line(tmp_path: Path, pack: Any) -> None:
    # U+2028 and form feeds are no line ends here, or the two sides would slip apart.
    many = [
        *PAIRS,
        ("one\u2028line\x0cstill", "eine"),
        *((f"s {i}", f"t {i}") for i in range(20_000)),
    ]
    suffix = ".gz" if pack is gzip.compress else ""
    paths = [str(tmp_path / f"text.{side}{suffix}") for side in ("en", "de")]
    for path, side, first in zip(
        paths, zip(*many, strict=True), (b"\xef\xbb\xbf", b""), strict=True
    ):
        Path(path).write_bytes(pack(first + "\n".join(side).encode()))
    read = rows(PairOfFiles(source=paths[0], target=paths[1]))
    assert [(source.strip(), target.strip()) for source, target, _ in read] == many
    assert {problem for *_, problem in read} == {None}


def test_values_that_are_no_text_are_marked_and_cost_only_their_row(tmp_path: Path) -> None:
    lines = [
        b'{"en": "good", "de": "gut"}',
        b'{"en": null, "de": "x"}',
        b'{"de": "x"}',
        b'{"en": 5, "de": "x"}',
        b'{"en": ["a"], "de": "x"}',
        b'{"en": "\\ud800", "de": "x"}',
        b'{"en": "\xff\xfe", "de": "x"}',
        b'{"en": "good", "de": "gut"}',
    ]
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(lines))
    marks = [problem for *_, problem in rows(str(tmp_path / "rows.jsonl"))]
    assert marks == [None, "missing", "missing", *["not_text"] * 4, None]
    (tmp_path / "rows.csv").write_bytes(b"en,de\ngood,gut\n\xff,x\ngood,gut\n")
    assert [problem for *_, problem in rows(str(tmp_path / "rows.csv"))] == [None, "not_text", None]


def test_parquet_nulls_and_text_types(tmp_path: Path) -> None:
    translation = pa.array(
        [{"en": "a", "de": "b"}, None, {"en": None, "de": "b"}],
        pa.struct([("en", pa.large_string()), ("de", pa.string_view())]),
    )
    pq.write_table(pa.table({"translation": translation}), tmp_path / "struct.parquet")
    expected: list[Row] = [("a", "b", None), (None, None, "missing"), (None, "b", "missing")]
    assert rows(str(tmp_path / "struct.parquet")) == expected
    coded = pa.table({"en": pa.array(["x", "x", None]).dictionary_encode(), "de": pa.nulls(3)})
    pq.write_table(coded, tmp_path / "coded.parquet")
    assert [row[2] for row in rows(str(tmp_path / "coded.parquet"))] == ["missing"] * 3


def test_lists_and_globs_keep_their_order(tmp_path: Path) -> None:
    for name, pair in zip(("b.jsonl", "a.jsonl", "c.jsonl"), PAIRS, strict=True):
        (tmp_path / name).write_bytes(jsonl([pair]))
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "d.jsonl").write_bytes(jsonl([("deep", "tief")]))
    named = [str(tmp_path / name) for name in ("c.jsonl", "b.jsonl")]
    assert rows(named) == good([PAIRS[2], PAIRS[0]])
    assert rows(str(tmp_path / "*.jsonl")) == good([PAIRS[1], PAIRS[0], PAIRS[2]])
    assert rows(str(tmp_path / "*" / "?.jsonl")) == good([("deep", "tief")])
    assert len(rows(str(tmp_path / "**" / "*.jsonl"))) == 4
    assert len(rows((tmp_path / "a.jsonl").as_uri())) == 1


def test_a_folder_is_laid_out_as_on_the_hub(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(jsonl(PAIRS))
    (tmp_path / "val.jsonl").write_bytes(jsonl(PAIRS[:1]))
    assert rows(str(tmp_path)) == good(PAIRS)
    assert rows(str(tmp_path), "validation") == good(PAIRS[:1])


def test_a_folder_with_configurations_and_several_files(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n"
        "- config_name: de-en\n  data_files:\n  - {split: train, path: 'x/train-*'}\n"
        "- config_name: fr-en\n  data_files:\n  - {split: train, path: fr.jsonl}\n---\n"
    )
    (tmp_path / "x").mkdir()
    for number, pair in enumerate(PAIRS):
        name = f"train-{number:05}-of-00003.parquet"
        (tmp_path / "x" / name).write_bytes(parquet([pair]))
    (tmp_path / "fr.jsonl").write_bytes(jsonl([("a dog", "un chien")]))
    assert rows(str(tmp_path), configuration="de-en") == good(PAIRS)
    assert rows(str(tmp_path), configuration="fr-en") == good([("a dog", "un chien")])
    with pytest.raises(RequestError, match=r"data\.configuration.*de-en.*fr-en"):
        check_source(str(tmp_path), data(), "train")


def test_a_large_parquet_file_is_read_in_several_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [(f"source {i}", f"target {i}") for i in range(1000)]
    (tmp_path / "large.parquet").write_bytes(parquet(pairs, groups=100))
    monkeypatch.setattr(source, "TASK_BYTES", 4000)
    found = find_source(str(tmp_path / "large.parquet"), data(), "train")
    assert len(found.parts) > 2
    assert [i for part in found.parts for i in part.row_groups or ()] == list(range(10))
    assert rows(str(tmp_path / "large.parquet")) == good(pairs)


def test_the_embedded_corpus_is_a_source() -> None:
    assert rows("embedded:validation") == good(grammar.pairs("validation"))


def test_identity_changes_with_the_data_and_the_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(jsonl(PAIRS))
    first = find_source(str(path), data(), "train").identity
    assert find_source(str(path), data(), "train").identity == first
    assert json.loads(json.dumps(first)) == first
    assert find_source(str(path), data(source="de"), "train").identity != first
    path.write_bytes(jsonl(PAIRS[::-1]))
    assert find_source(str(path), data(), "train").identity != first


def test_ray_data_keeps_the_order_of_files_and_rows(ray_cluster: None, tmp_path: Path) -> None:
    import ray.data

    for number in range(12):  # the first files take longest
        pairs = [(f"{number}-{i}", "x") for i in range(3000 if number < 2 else 100)]
        (tmp_path / f"{number:02}.jsonl").write_bytes(jsonl(pairs))
    dataset, identity = read_source(str(tmp_path / "*.jsonl"), data(), "train")
    assert [row["source"] for row in dataset.iter_rows()] == [
        f"{number}-{i}" for number in range(12) for i in range(3000 if number < 2 else 100)
    ]
    assert len(identity["files"]) == 12
    assert not ray.data.DataContext.get_current().execution_options.preserve_order


# --- The hub ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with serve_hub() as server:
        yield server


ON_THE_HUB = """
import json, sys
from pipeline.errors import RequestError
from pipeline.recipe import Data
from pipeline.source import check_source, find_source
for request in json.loads(sys.argv[1]):
    name, split, values = request
    data = Data(**{"train": "-", "validation": "-", "source": "en", "target": "de"} | values)
    try:
        check_source(name, data, split)
        found = find_source(name, data, split)
        tables = [t for part in range(len(found.parts)) for t in found.tables(part)]
        answer = {"rows": sum(t.num_rows for t in tables), "identity": found.identity}
    except RequestError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer))
"""


def ask(
    endpoint: str, home: Path, *requests: tuple[str, str, dict[str, Any]], program: str = ON_THE_HUB
) -> list[Any]:
    """Answers of a new process, because the endpoint is read when the libraries are imported."""
    environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "NO_PROXY": "*"}
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(requests)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_hub_dataset_and_its_revisions(hub: Hub, tmp_path: Path) -> None:
    old = hub.publish("owner/set", {"train.jsonl": jsonl(PAIRS[:1])})
    new = hub.publish(
        "owner/set",
        {
            "README.md": b"# A set\n",
            "data/train-00000-of-00002.parquet": parquet(PAIRS, nested=True),
            "data/train-00001-of-00002.parquet": parquet(PAIRS[:2], nested=True),
            "data/validation-00000-of-00001.parquet": parquet(PAIRS[:1], nested=True),
        },
    )
    train, validation, before = ask(
        hub.endpoint,
        tmp_path,
        ("owner/set", "train", {}),
        ("owner/set", "validation", {"revision": "main"}),
        ("owner/set", "train", {"revision": old}),
    )
    assert (train["rows"], validation["rows"], before["rows"]) == (5, 1, 1)
    assert train["identity"]["revision"] == validation["identity"]["revision"] == new
    assert before["identity"]["revision"] == old
    assert [file["path"].split(f"@{new}/")[1] for file in train["identity"]["files"]] == [
        "data/train-00000-of-00002.parquet",
        "data/train-00001-of-00002.parquet",
    ]


def test_mistakes_with_hub_datasets_are_answered_in_words(hub: Hub, tmp_path: Path) -> None:
    hub.publish("owner/good", {"train.csv": CSV, "test.csv": CSV})
    hub.publish("owner/text", {"train.txt": b"one\ntwo\n"})
    hub.publish("owner/gated", {"train.csv": CSV})
    hub.gated.add("owner/gated")
    answers = ask(
        hub.endpoint,
        tmp_path,
        ("owner/god", "train", {}),
        ("owner/gated", "train", {}),
        ("owner/good", "train", {"revision": "v9"}),
        ("owner/good", "tests", {}),
        ("owner/good", "train", {"source": "english"}),
        ("owner/text", "train", {}),
    )
    for answer, words in zip(
        answers,
        (
            ("owner/god", "spelling", "HF_TOKEN"),
            ("owner/gated", "ask for access", "HF_TOKEN"),
            ("data.revision", "'v9'"),
            ("'tests'", "did you mean 'test'?"),
            ("data.source", "'english'", "de, en, id"),
            ("train.txt", ".parquet, .jsonl"),
        ),
        strict=True,
    ):
        assert all(word in answer["error"] for word in words), answer


OUT_OF_REACH = (
    """
import json, time
start = time.monotonic()
"""
    + ON_THE_HUB
    + """
print(json.dumps(time.monotonic() - start))
"""
)


def test_without_a_network_it_fails_in_seconds(tmp_path: Path) -> None:
    with serve_hub() as closed:
        endpoint = closed.endpoint
    answer, seconds = ask(endpoint, tmp_path, ("owner/set", "train", {}), program=OUT_OF_REACH)
    assert "neither a file or folder here" in answer["error"]
    assert "check the network" in answer["error"]
    assert seconds < HUB_SECONDS


ON_THE_CLUSTER = """
import json, sys
import ray
from pipeline.recipe import Data
from pipeline.source import read_source
address, name = json.loads(sys.argv[1])
ray.init(address=address, log_to_driver=False, logging_level="ERROR")
data = Data(train="-", validation="-", source="en", target="de")
dataset, _ = read_source(name, data, "train")
print(json.dumps([[row["source"], row["target"]] for row in dataset.iter_rows()]))
"""


def test_workers_reach_the_hub_that_the_driver_reaches(
    ray_cluster: None, hub: Hub, tmp_path: Path
) -> None:
    import ray

    hub.publish("owner/two", {"train-0.jsonl": jsonl(PAIRS), "train-1.jsonl": jsonl(PAIRS)})
    address = ray.get_runtime_context().gcs_address  # its workers have no HF_ENDPOINT
    [read] = ask(hub.endpoint, tmp_path, address, "owner/two", program=ON_THE_CLUSTER)  # type: ignore[arg-type]
    assert [tuple(pair) for pair in read] == PAIRS * 2


# --- What is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("nope.jsonl", ("nope.jsonl", "no such file")),
        ("nowhere/x.parquet", ("x.parquet", "no such file", "nowhere")),
        ("*.tsv.gz", ("*.tsv.gz", "no such file")),
        (["good.jsonl", "nope.csv"], ("nope.csv",)),
        ([], ("empty",)),
        ("notes.txt", ("notes.txt", ".jsonl", ".parquet")),
        ("good.parquet.gz", ("good.parquet.gz", ".jsonl")),
        ("empty.jsonl", ("empty.jsonl", "is empty")),
        ("empty.csv", ("empty.csv",)),
        ("header.tsv", ("header.tsv", "is empty")),
        ("empty.parquet", ("empty.parquet", "is empty")),
        ("broken.parquet", ("broken.parquet",)),
        ("broken.jsonl", ("broken.jsonl", "line 2")),
        ("array.json", ("array.json", "line 1")),
        ("ragged.csv", ("ragged.csv", "Expected 2 columns")),
        ("broken.jsonl.gz", ("broken.jsonl.gz",)),
        ("numbers.parquet", ("data.source", "'en'", "int64")),
        ("other.jsonl", ("data.source", "'en'", "eng, ger", "did you mean 'eng'?")),
        ("other.csv", ("data.source", "'en'", "eng, ger")),
        ("other.parquet", ("data.source", "'en'", "id, translation, de (in translation)")),
        ("folder", ("folder", "validation")),
        ("embedded:tran", ("embedded:tran", "did you mean 'embedded:train'?")),
        (PairOfFiles(source="three", target="two"), ("three", "3 lines", "two", "2")),
        (PairOfFiles(source="three", target="nope"), ("nope", "no such file")),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: Location, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_bad_files(tmp_path)
    with pytest.raises(RequestError) as caught:
        check_source(location, data(), "train")
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


def write_bad_files(folder: Path) -> None:
    contents = {
        "good.jsonl": jsonl(PAIRS),
        "good.parquet.gz": gzip.compress(parquet(PAIRS)),
        "notes.txt": b"text",
        "empty.jsonl": b"",
        "empty.csv": b"",
        "header.tsv": b"en\tde\n",
        "empty.parquet": _no_rows(),
        "broken.parquet": b"PAR1 and no more",
        "broken.jsonl": jsonl(PAIRS[:1]) + b"{nope\n",
        "array.json": json.dumps([{"en": "a", "de": "b"}]).encode(),
        "ragged.csv": b"en,de\na,b\nonly one\n",
        "broken.jsonl.gz": b"this was never packed",
        "numbers.parquet": parquet([(1, "eins"), (2, "zwei")]),
        "other.jsonl": b'{"eng": "a", "ger": "b"}\n',
        "other.csv": b"eng,ger\na,b\n",
        "other.parquet": _other_translation(),
        "three": b"1\n2\n3\n",
        "two": b"1\n2\n",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "folder").mkdir()
    (folder / "folder" / "validation.jsonl").write_bytes(jsonl(PAIRS))


def _no_rows() -> bytes:
    schema = pa.schema([("en", pa.string()), ("de", pa.string())])
    pq.write_table(schema.empty_table(), buffer := io.BytesIO())
    return buffer.getvalue()


def _other_translation() -> bytes:
    table = pa.table({"id": [1], "translation": [{"de": "b"}]})
    pq.write_table(table, buffer := io.BytesIO())
    return buffer.getvalue()
