import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from heliograph import translate_dataset
from heliograph.pipeline.bulk.parts import MANIFEST, SUCCESS
from heliograph.pipeline.request.data import Location
from heliograph.pipeline.request.decoding import Bulk
from heliograph.pipeline.request.errors import RequestError
from tests.pipeline.conftest import PAIRS, MakeModel

pytestmark = pytest.mark.usefixtures("ray_cluster")

SMALL = Bulk(part_rows=25, max_characters=500)
HOSTILE: list[tuple[Any, str]] = [
    (None, "missing"),
    (7, "not_text"),
    ("\ud800 dog", "not_text"),
    ("x" * 1_000_000, "too_long"),
]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read_folder(folder: Path) -> list[dict[str, Any]]:
    return [
        row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()
    ]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Location:
    """Two files of 60 rows; hostile ones are among those of the second."""
    folder = tmp_path_factory.mktemp("inputs")
    rows = [
        {"id": number, "en": PAIRS[number % 6][0], "of": {"page": number // 10}}
        for number in range(120)
    ]
    for number, (text, _) in enumerate(HOSTILE):
        rows[70 + number]["en"] = text
    return [
        write_lines(folder / "a.jsonl", rows[:60]),
        write_lines(folder / "b.jsonl", rows[60:]),
    ]


@pytest.fixture(scope="module")
def translated(
    inputs: Location,
    make_model: MakeModel,
    ray_cluster: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folder of a translation that is done; only to be read."""
    output = tmp_path_factory.mktemp("translated") / "out"
    done = translate_dataset(
        str(make_model(1)), inputs, str(output), "en", decoding=["beam=2"], bulk=SMALL
    )
    assert done == {
        "rows": 120,
        "failed": {"missing": 1, "not_text": 2, "too_long": 1},
        "parts": 6,
        "output": str(output),
    }
    return output


def test_every_row_is_kept_in_its_place_with_all_its_columns(translated: Path) -> None:
    rows = read_folder(translated)
    assert [row["id"] for row in rows] == list(range(120))
    assert [row["of"] for row in rows] == [{"page": number // 10} for number in range(120)]
    for number, row in enumerate(rows):
        assert list(row) == ["id", "en", "of", "translation", "error"]
        if 70 <= number < 74:
            text, error = HOSTILE[number - 70]
            shown = "\\ud800 dog" if number == 72 else text if text is None else str(text)
            assert (row["en"], row["translation"]) == (shown, None)
            assert row["error"].startswith(error)
        else:
            assert (row["en"], row["translation"]) == PAIRS[number % 6]
            assert row["error"] is None


def test_other_readers_see_rows_alone(translated: Path) -> None:
    assert pq.read_table(translated).num_rows == 120


def test_what_is_done_is_not_done_again(
    translated: Path, inputs: Location, make_model: MakeModel, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    shutil.copytree(translated, output)
    (output / SUCCESS).unlink()
    lost = sorted(output.glob("*.parquet"))[4]
    lost.unlink()
    before = {path.name: path.stat().st_mtime_ns for path in output.glob("*.parquet")}
    request = (str(make_model(1)), inputs, str(output), "en")

    done = translate_dataset(*request, decoding=["beam=2"], bulk=SMALL)
    assert (done["rows"], done["parts"], sum(done["failed"].values())) == (120, 6, 4)
    after = {path.name: path.stat().st_mtime_ns for path in output.glob("*.parquet")}
    assert after.keys() - before.keys() == {lost.name}
    assert {name: after[name] for name in before} == before
    assert read_folder(output) == read_folder(translated)

    lost.unlink()  # unseen: all is done
    assert translate_dataset(*request, decoding=["beam=2"], bulk=SMALL) == done
    assert not lost.exists()


def test_another_request_is_refused_and_told_why(
    translated: Path, inputs: Location, make_model: MakeModel
) -> None:
    output = str(translated)
    assert isinstance(inputs, list)
    for seed, files, beam, difference in (
        (1, inputs, 1, r"\(decoding\.beam: 2 then, 1 now\)"),
        (2, inputs, 2, r"\(model: \S+ then, \S+ now\)"),
        (1, inputs[:1], 2, r"input\.files: .* then, null now"),
    ):
        model, decoding = str(make_model(seed)), [f"beam={beam}"]
        with pytest.raises(RequestError, match=difference):
            translate_dataset(model, files, output, "en", decoding=decoding, bulk=SMALL)


def test_a_name_that_is_taken_is_refused(make_model: MakeModel, tmp_path: Path) -> None:
    location = write_lines(tmp_path / "rows.jsonl", [{"source": "A dog.", "error": "none"}])
    with pytest.raises(RequestError, match="column 'error' already"):
        translate_dataset(str(make_model(1)), location, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_an_output_in_use_is_left_alone(make_model: MakeModel, tmp_path: Path) -> None:
    location = write_lines(tmp_path / "rows.jsonl", [{"source": "A dog."}])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").touch()
    with pytest.raises(RequestError, match="holds other files"):
        translate_dataset(str(make_model(1)), location, str(tmp_path / "out"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["precious"]


def test_a_damaged_end_is_found_before_anything_is_translated(
    make_model: MakeModel, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    write_lines(path, [{"source": "A dog."}] * 30_000)
    path.write_text(path.read_text() + '{"source": "cut o')
    with pytest.raises(Exception, match="ends in the middle of line 30001"):
        translate_dataset(str(make_model(1)), str(path), str(tmp_path / "out"))
    assert not (tmp_path / "out" / MANIFEST).exists()
