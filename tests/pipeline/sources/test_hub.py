"""Datasets on the hub (a local stand-in of it): revisions, refusals, and no network."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.hub import Hub, ask, serve_hub
from tests.pipeline.pairs import CSV, PAIRS, jsonl, parquet


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with serve_hub() as server:
        yield server


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


def test_without_a_network_it_says_so(tmp_path: Path) -> None:
    with serve_hub() as closed:
        endpoint = closed.endpoint
    (answer,) = ask(endpoint, tmp_path, ("owner/set", "train", {}))
    assert "neither a file or folder here" in answer["error"]
    assert "check the network" in answer["error"]


ON_THE_CLUSTER = """
import json, sys
import ray
from heliograph.pipeline.request.data import Data
from heliograph.pipeline.sources.source import read_source
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


def test_private_datasets_need_their_token(hub: Hub, tmp_path: Path) -> None:
    hub.publish("owner/private", {"train.csv": CSV, "notes.txt": b"x"})
    hub.publish("owner/text", {"train.txt": b"one\ntwo\n"})
    hub.private |= {"owner/private": "hf_secret", "owner/text": "hf_secret"}
    [refused] = ask(hub.endpoint, tmp_path, ("owner/private", "train", {}))
    assert all(word in refused["error"] for word in ("owner/private", "private", "HF_TOKEN"))
    text = {"source": "text", "target": "text"}
    direct, streamed = ask(
        hub.endpoint,
        tmp_path,
        ("owner/private", "train", {}),
        ("owner/text", "train", text),
        token="hf_secret",
    )
    assert (direct["rows"], streamed["rows"]) == (3, 2)
    hub.private.clear()


def test_what_the_readme_says_of_csv_files(hub: Hub, tmp_path: Path) -> None:
    readme = "---\nconfigs:\n- config_name: default\n  data_files: x.csv\n  {}\n---\n"
    files = {"semicolon": 'sep: ";"', "tab": 'sep: "\\t"', "unnamed": "names: [en, de]"}
    contents = {"semicolon": b"en;de\na, b;c\n", "tab": b"en\tde\na\tb\n", "unnamed": b"a,b\nc,d\n"}
    for name, setting in files.items():
        published = {"README.md": readme.format(setting).encode(), "x.csv": contents[name]}
        hub.publish(f"owner/{name}", published)
    answers = ask(hub.endpoint, tmp_path, *((f"owner/{name}", "train", {}) for name in files))
    assert [answer.get("rows") for answer in answers] == [1, 1, 2], answers


def test_a_dataset_of_another_format_is_streamed(hub: Hub, tmp_path: Path) -> None:
    sha = hub.publish("owner/lines", {"train-0.txt": b"one\ntwo\n", "train-1.txt": b"three\n"})
    values = {"source": "text", "target": "text"}
    location = {"stream": "owner/lines"}
    plain, stream = ask(
        hub.endpoint, tmp_path, ("owner/lines", "train", values), (location, "train", values)
    )
    assert plain["rows"] == stream["rows"] == 3
    assert plain["identity"] == stream["identity"]
    assert plain["identity"]["revision"] == sha


PREPARED = """
import json, sys
import ray
from heliograph.pipeline.corpus.corpus import prepare_corpus
from heliograph.pipeline.corpus.found_data import find_recipe_data
from heliograph.pipeline.request.data import Data
address, name, storage = json.loads(sys.argv[1])
ray.init(address=address, log_to_driver=False, logging_level="ERROR")
data = Data(train=name, validation=name, validation_split="train", source="en", target="de")
found = find_recipe_data(data, storage)["data.train"]
told = []
corpus = prepare_corpus(found, 10, storage, tell=told.append)
print(json.dumps([corpus.digest, corpus.identity["revision"], told]))
"""


def test_what_was_prepared_does_not_need_the_hub_again(ray_cluster: None, tmp_path: Path) -> None:
    import ray

    asked: Any = (ray.get_runtime_context().gcs_address, "owner/two", str(tmp_path / "storage"))
    with serve_hub() as hub:
        hub.publish("owner/two", {"train-0.jsonl": jsonl(PAIRS)})
        [(digest, revision, told)] = ask(hub.endpoint, tmp_path, *asked, program=PREPARED)
    assert told == []
    [(again, known, (line,))] = ask(hub.endpoint, tmp_path, *asked, program=PREPARED)
    assert (again, known) == (digest, revision)
    assert "check the network" in line
    assert f"goes on from the {len(PAIRS)} pairs prepared of it" in line
