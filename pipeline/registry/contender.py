"""A version of a registered model, as the gate sees it; what it translated once is kept with it.

Translations are kept as an artifact of the version's run, by what they are of and how they were
decoded, and a tag of the version holds their digest. The tag is written last: without it, or where
the file is another, the version translates again.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from mlflow.entities.model_registry import ModelVersion

from heliograph.pipeline.checkpoints.model_folder import WEIGHTS
from heliograph.pipeline.registry.downloads import download
from heliograph.pipeline.registry.versions import fetch_version
from heliograph.pipeline.request.decoding import Search
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.scoring.evaluate import Pairs, evaluation_digest
from heliograph.pipeline.tracking.server import PatientClient
from heliograph.pipeline.translation.engines import ENGINE
from heliograph.pipeline.translation.translate import RunsModel
from heliograph.pipeline.translation.workplace import Workplace

TRANSLATIONS = "heliograph.translations."
"""And a key: a tag of a version, the SHA-256 of the file with those translations."""


class VersionContender:
    """A version that translates as `settings` say; see `gate.Contender`."""

    def __init__(
        self,
        client: PatientClient,
        version: ModelVersion,
        settings: Search,
        workplace: Workplace,
        folder: Path | None = None,
    ) -> None:
        """
        Args:
            workplace: where it translates, and whoever it is compared with.
            folder: its model folder, if it was fetched already.
        """
        self.number = int(version.version)
        self._client = client
        self._version = version
        self._settings = settings
        self._workplace = workplace
        self._folder = folder
        self._known: dict[str, list[str]] = {}

    @cached_property
    def folder(self) -> Path:
        """Its model folder, after its files were checked; raises as `fetch_version` does."""
        return self._folder or fetch_version(self._version, exports=False)

    @cached_property
    def _engine(self) -> RunsModel:
        return self._workplace.open(self.folder)

    def translations(self, pairs: Pairs) -> list[str]:
        key = _key(pairs, self._settings, self._workplace.device)
        if key not in self._known:
            self._known[key] = self._kept(key) or self._translate(pairs)
        return self._known[key]

    def speed(self, sources: Sequence[str]) -> float:
        self._engine.translate(sources[:8], self._settings)  # what is slow only once
        started = time.perf_counter()
        self._engine.translate(sources, self._settings)
        return len(sources) / (time.perf_counter() - started)

    def size(self) -> int:
        return (self.folder / WEIGHTS).stat().st_size

    def _translate(self, pairs: Pairs) -> list[str]:
        hypotheses = self._engine.translate([source for source, _ in pairs], self._settings)
        device = self._workplace.device
        keep_translations(self._client, self._version, pairs, self._settings, hypotheses, device)
        return hypotheses

    def _kept(self, key: str) -> list[str] | None:
        digest = self._version.tags.get(TRANSLATIONS + key)
        if digest is None:
            return None
        try:
            path = download(f"runs:/{self._version.run_id}/{_path(self.number, key)}")
        except RequestError:
            return None
        text = path.read_text(encoding="utf-8")
        return list(json.loads(text)) if _sha256(text) == digest else None


def keep_translations(
    client: PatientClient,
    version: ModelVersion,
    pairs: Pairs,
    settings: Search,
    hypotheses: Sequence[str],
    device: str,
) -> None:
    """Keep what a version made of the pairs' sources, for later comparisons on such a device."""
    key = _key(pairs, settings, device)
    text = json.dumps(list(hypotheses), ensure_ascii=False, indent=0)
    client.log_text(version.run_id, text, _path(int(version.version), key))
    client.set_model_version_tag(
        version.name, str(version.version), TRANSLATIONS + key, _sha256(text)
    )


def _path(number: int, key: str) -> str:
    return f"translations/version-{number}/{key}.json"


def _key(pairs: Pairs, settings: Search, device: str) -> str:
    """Of a comparison both sides are translated on the same kind of device: a GPU rounds otherwise
    than a CPU, and makes another string now and then."""
    said = [evaluation_digest(pairs), settings.search_settings(), ENGINE, device]
    return _sha256(json.dumps(said, sort_keys=True))[:16]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
