"""A disk that fills up while a job trains ends it with words; with room, it goes on."""

import re
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from tests.pipeline.small_disk import in_small_disk


@pytest.mark.faults
@pytest.mark.timeout(1200)
def test_a_full_disk_ends_the_job_and_with_room_the_same_command_goes_on(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    result = in_small_disk(disk, "tests.jobs.full_disk", timeout=1100)
    assert result["exit codes"] == [1, 0]
    named = re.search(r"is full: the checkpoint of step (\d+) needs at least", result["said"])
    assert named, result["said"]
    assert "the same command then goes on from the newest checkpoint" in result["said"]
    assert "Traceback" not in result["said"]
    assert result["steps"] == list(range(2, int(named[1]), 2))  # those before it are whole
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiments = [each.experiment_id for each in client.search_experiments()]
    (run,) = client.search_runs(experiments, "attributes.run_name = 'small'")
    history = client.get_metric_history(run.info.run_id, "train/learning_rate")
    logged = [metric.step for metric in history]
    assert logged == sorted(set(logged))
    assert logged[-1] == 60
