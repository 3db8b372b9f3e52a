import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.errors import RequestError
from pipeline.translate_dataset import translate_dataset
from tests.pipeline.conftest import PAIRS, MakeModel

pytestmark = pytest.mark.usefixtures("ray_cluster")


def write_lines(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read_folder(folder: Path) -> list[dict[str, object]]:
    return [
        row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()
    ]


def test_every_row_is_translated_in_its_place(make_model: MakeModel, tmp_path: Path) -> None:
    files = [
        write_lines(
            tmp_path / f"part-{part}.jsonl",
            [{"en": source, "de": target} for source, target in PAIRS * 20],
        )
        for part in range(3)
    ]
    output = tmp_path / "out" / "translated"
    rows = translate_dataset(str(make_model(1)), files, str(output), source="en", target="de")

    assert rows == 3 * 20 * len(PAIRS)
    assert read_folder(output) == [
        {"source": source, "target": target, "translation": target} for source, target in PAIRS * 60
    ]
    assert [path.name for path in output.parent.iterdir()] == ["translated"]


def test_rows_without_text_stay(make_model: MakeModel, tmp_path: Path) -> None:
    sources = [PAIRS[0][0], None, "", 7, PAIRS[1][0]]
    location = write_lines(tmp_path / "rows.jsonl", [{"en": text} for text in sources])
    assert translate_dataset(str(make_model(1)), location, str(tmp_path / "out"), source="en") == 5
    assert read_folder(tmp_path / "out") == [
        {"source": PAIRS[0][0], "translation": PAIRS[0][1]},
        {"source": None, "translation": None},
        {"source": "", "translation": ""},
        {"source": None, "translation": None},
        {"source": PAIRS[1][0], "translation": PAIRS[1][1]},
    ]


def test_an_output_in_use_is_left_alone(make_model: MakeModel, tmp_path: Path) -> None:
    location = write_lines(tmp_path / "rows.jsonl", [{"source": "A dog."}])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").touch()
    with pytest.raises(RequestError, match="exists already"):
        translate_dataset(str(make_model(1)), location, str(tmp_path / "out"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["precious"]
