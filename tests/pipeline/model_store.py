"""A tracking store of one test's own, with models registered as training jobs do it."""

import json
import os
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

from heliograph.pipeline.promotion.ledger import Record, find_ledger
from heliograph.pipeline.promotion.promote import history
from heliograph.pipeline.registry.registry import register
from heliograph.pipeline.request.decoding import Evaluate
from heliograph.pipeline.scoring.evaluate import evaluate, write_evaluation_set
from heliograph.pipeline.tracking.server import PatientClient
from heliograph.pipeline.translation.translate import Translator
from tests.pipeline.conftest import PAIRS

RECIPE = """
name: tiny
data: {train: embedded:train, validation: embedded:validation}
train: {steps: 120}
evaluate: {beam: 2}
"""
SETTINGS = Evaluate(beam=2)


class Store:
    """A tracking store of one test's own, with one run, and models registered from it."""

    def __init__(self, folder: Path, name: str = "tiny") -> None:
        self.name = name
        self.folder = folder
        self.recipe = RECIPE
        self.client = PatientClient(os.environ["MLFLOW_TRACKING_URI"])
        self.experiment = self.client.create_experiment(
            self.name, artifact_location=(folder / "artifacts").as_uri()
        )
        self.run_id = self.client.create_run(self.experiment).info.run_id

    def register(self, model: Path, pairs: list[tuple[str, str]] = PAIRS) -> int:
        """As a training job does it: what is registered was scored, with its set beside it."""
        folder = self.folder / f"finished-{len(list(self.folder.iterdir()))}"
        shutil.copytree(model, folder)
        (folder / "recipe.yaml").write_text(self.recipe)
        (folder / "optimizer.safetensors").write_bytes(b"of no use any more")
        digest = write_evaluation_set(folder, pairs)
        scores = evaluate(Translator.load(folder, "cpu"), pairs, SETTINGS)
        return register(self.run_id, folder, self.name, scores, digest, "cpu")

    def tags(self, version: int) -> dict[str, str]:
        return dict(self.client.get_model_version(self.name, str(version)).tags)

    def bleu(self, version: int) -> float:
        return float(self.tags(version)["heliograph.bleu"])

    def alias(self, alias: str) -> int:
        return int(self.client.get_model_version_by_alias(self.name, alias).version)

    def register_like(self, model: Path, count: int) -> None:
        """So many versions that differ in nothing that anyone would notice."""
        for number in range(count):
            folder = self.folder / f"like-{model.name}-{number}"
            shutil.copytree(model, folder)
            weights = load_file(folder / "model.safetensors")
            first = min(weights)
            weights[first] = weights[first] * (1 + 1e-6 * number)
            save_file(weights, folder / "model.safetensors")
            self.register(folder)

    def check_consistency(self, known: int = 0) -> list[Record]:
        """Ledger, alias and tags say the same, after the next command; all records.

        Args:
            known: so many records' tags and reports were looked at before.
        """
        records = history(self.name)
        ledger = find_ledger(self.client, self.name)
        page = ledger.read() if ledger else None
        aliases = self.client.get_registered_model(self.name).aliases
        champions = page.champions if page else []
        assert (
            [int(aliases["champion"])] == champions[-1:]
            if aliases.get("champion")
            else not champions
        )
        assert [record.number for record in records] == list(range(1, len(records) + 1))
        assert len({record.id for record in records}) == len(records)
        champion = None
        for record in records:
            assert record.previous == champion
            champion = record.champion
            if record.number <= known:
                continue
            tag = self.tags(record.version)[f"heliograph.decision.{record.number:06d}"]
            assert json.loads(tag)["id"] == record.id
            report = f"decisions/{record.id}"
            found = {entry.path for entry in self.client.list_artifacts(self.run_id, report)}
            assert found == {f"{report}/decision.json", f"{report}/report.html"}
        return records
