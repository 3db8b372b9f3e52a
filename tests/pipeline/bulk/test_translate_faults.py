"""An actor, a node, which nobody knows for a while, and the driver are killed, one after the other:
nothing is lost, and nothing of what was written is written again."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from heliograph.pipeline.request.decoding import Evaluate
from heliograph.pipeline.translation.translate import Translator
from tests.pipeline.conftest import PAIRS, MakeModel
from tests.ray_nodes import RayNodes

ROWS, PART_ROWS = 3000, 50
DEADLINE = 1000.0
"""Seconds, of all waiting together."""

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200)]


def test_whatever_is_killed_only_the_parts_under_way_are_done_again(
    make_model: MakeModel, tmp_path: Path
) -> None:
    """On nodes of one CPU each, and none for the head: the actors take them all."""
    end = time.monotonic() + DEADLINE
    model, output = make_model(1), tmp_path / "out"
    texts = [f"{PAIRS[number % 6][0]} {number % 97}" for number in range(ROWS)]
    pq.write_table(pa.table({"id": range(ROWS), "en": texts}), tmp_path / "rows.parquet")

    def parts() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in output.glob("*.parquet")}

    def wait_for(count: int, driver: subprocess.Popen[bytes]) -> None:
        wait(lambda: len(parts()) >= count or driver.poll() is not None, end)
        assert driver.poll() is None, (tmp_path / "log").read_text()

    with RayNodes([0, 1, 1]) as nodes:
        driver = start_driver(model, tmp_path, nodes)
        wait_for(3, driver)
        workers = [p for p in nodes.processes() if "ray::MapWorker" in p.name() + cmdline(p)]
        assert workers
        workers[0].kill()
        wait_for(len(parts()) + 4, driver)
        nodes.lose_one(random.Random(1), known_after=8.0)
        wait_for(len(parts()) + 4, driver)
        driver.kill()
        driver.wait()
        before = parts()
        assert 0 < len(before) < ROWS // PART_ROWS
        again = start_driver(model, tmp_path, nodes)
        assert again.wait(timeout=max(1.0, end - time.monotonic())) == 0, (
            tmp_path / "log"
        ).read_text()

    after = parts()
    assert {name: after[name] for name in before} == before, "what was written stays as it is"
    rows = [row for name in sorted(after) for row in pq.read_table(output / name).to_pylist()]
    undisturbed = Translator.load(model).translate(texts, Evaluate(beam=3))
    assert [row["id"] for row in rows] == list(range(ROWS))
    assert [row["translation"] for row in rows] == undisturbed
    assert {row["error"] for row in rows} == {None}


def start_driver(model: Path, folder: Path, nodes: RayNodes) -> subprocess.Popen[bytes]:
    """`heliograph translate` in a process of its own."""
    command = [sys.executable, "-m", "heliograph.jobs.translate", str(model), "beam=3"]
    command += ["--input", str(folder / "rows.parquet"), "--output", str(folder / "out")]
    command += ["--source", "en", "--part-rows", str(PART_ROWS)]
    with (folder / "log").open("w") as log:
        return subprocess.Popen(
            command, env=os.environ | nodes.environment(), stdout=log, stderr=log
        )


def wait(is_so: Callable[[], bool], end: float) -> None:
    while not is_so():
        if time.monotonic() > end:
            pytest.fail("the deadline is over")
        time.sleep(0.02)


def cmdline(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""
