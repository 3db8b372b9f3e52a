"""Which files a location means: lists, globs, folders, and the hub (a local stand-in of it)."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import RequestError
from pipeline.hub import HUB_SECONDS
from pipeline.source import check_source
from tests.pipeline.hub import Hub, serve_hub
from tests.pipeline.pairs import CSV, PAIRS, data, good, jsonl, parquet, rows

ROOT = Path(__file__).parents[2]


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
            ("train.txt", "no column 'en'; it has: text"),
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
