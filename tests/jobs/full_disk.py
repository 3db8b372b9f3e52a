"""`heliograph train` whose storage, a disk of 8 MB, fills up and is made larger.

Run by `in_small_disk`; prints as JSON what happened there.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.small_job import Command, small_recipe
from tests.waiting import DEADLINE


def main(disk: Path) -> dict[str, Any]:
    folder = disk.parent
    recipe = small_recipe(
        folder,
        storage=str(disk / "storage"),
        train={"steps": 60, "checkpoint_steps": 2, "keep_checkpoints": 1_000},
        validation={"every_steps": 60, "sentences": 10},
        track={"attention_sentences": 0},
        cluster={"max_failures": 2},
    )
    (folder / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    command = ["heliograph.jobs.train", "recipe.yaml"]
    full = Command(command, folder, {})
    exit_codes = [full.process.wait(2 * DEADLINE)]
    said = full.said()
    steps = [int(path.name[5:]) for path in disk.glob("storage/jobs/*/checkpoints/step-*")]
    subprocess.run(["mount", "-o", "remount,size=500m", str(disk)], check=True)
    exit_codes.append(Command(command, folder, {}).process.wait(2 * DEADLINE))
    return {"exit codes": exit_codes, "said": said, "steps": sorted(steps)}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
