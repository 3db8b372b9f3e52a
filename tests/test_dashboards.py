"""Each panel and each rule asks for what a real run exports."""

import importlib.util
import json
import re
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from pipeline.placement import Placement
from pipeline.progress import open_board
from pipeline.recipe import Cluster, Validation
from pipeline.stopwatch import PHASES
from pipeline.train import train
from tests.pipeline.small_plan import job, small_plan

DEPLOY = Path(__file__).parents[1] / "deploy"


@pytest.fixture(scope="module")
def panels() -> ModuleType:
    spec = importlib.util.spec_from_file_location("panels", DEPLOY / "grafana" / "panels.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Scraper(threading.Thread):
    """Keeps what the nodes' endpoints of Ray export, as Prometheus would."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.series: dict[str, float] = {}
        self.ended = threading.Event()

    def run(self) -> None:
        import ray

        while not self.ended.wait(0.3):
            for node in ray.nodes():
                url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
                try:
                    with urllib.request.urlopen(url, timeout=5) as response:
                        self._keep(response.read().decode())
                except OSError:  # Ray's agent starts after Ray
                    continue

    def _keep(self, text: str) -> None:
        for line in text.splitlines():
            if not line.startswith("#"):
                series, _, value = line.rpartition(" ")
                self.series[series] = float(value)

    def names(self) -> set[str]:
        return {series.partition("{")[0] for series in self.series}

    def labels(self, name: str, label: str) -> set[str]:
        """All values of a label of a metric."""
        found = (re.search(rf'[{{,]{label}="([^"]*)"', each) for each in self.of(name))
        return {match[1] for match in found if match is not None}

    def of(self, name: str) -> dict[str, float]:
        return {each: value for each, value in self.series.items() if each.startswith(f"{name}{{")}


@contextmanager
def scraping() -> Iterator[Scraper]:
    scraper = Scraper()
    scraper.start()
    yield scraper
    scraper.ended.set()
    scraper.join(10)


@pytest.fixture(scope="module")
def exported(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Scraper:
    """All that Ray exported while two ranks trained."""
    plan = small_plan(tmp_path_factory.mktemp("dashboards"))
    plan = replace(job(plan, "watched"), validation=Validation(every_steps=40, sentences=2))
    with scraping() as scraper:
        train(plan, Placement(2, 0.5, use_gpu=False), Cluster(workers=2), open_board())
    return scraper


def metrics_of(query: str) -> set[str]:
    """The metrics that a PromQL query names: Ray's all begin alike."""
    return set(re.findall(r"\bray_\w+", query))


def test_each_query_names_what_a_run_exports(exported: Scraper, panels: ModuleType) -> None:
    queries = [
        target["expr"] for panel in panels.dashboard()["panels"] for target in panel["targets"]
    ]
    rules = yaml.safe_load((DEPLOY / "prometheus" / "heliograph.rules.yml").read_text())
    queries += [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    queries += [panels.dashboard()["templating"]["list"][1]["query"]]
    assert len(queries) >= len(panels.PANELS) + 4
    for query in queries:
        assert metrics_of(query), query
        assert metrics_of(query) <= exported.names(), query


def test_the_labels_that_queries_sum_over_are_there(exported: Scraper, panels: ModuleType) -> None:
    seconds, own = "ray_heliograph_phase_seconds_total", {"0", "1"}
    assert exported.labels(seconds, "rank") == own
    assert len(exported.labels(seconds, "NodeAddress")) == 1
    (name,) = exported.labels(seconds, "job_name")
    assert name.endswith("-watched")
    assert exported.labels(seconds, "phase") == set(PHASES)
    for panel in panels.dashboard()["panels"]:
        for target in panel["targets"]:
            asked = metrics_of(target["expr"])
            for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
                if label != "instance":  # Prometheus' own
                    found = [exported.labels(metric, label) for metric in asked]
                    assert any(found), (panel["title"], label)


def test_the_counters_count_what_was_trained(exported: Scraper) -> None:
    """110 steps on each rank; what was counted before the last export, at the least."""
    for value in exported.of("ray_heliograph_steps_total").values():
        assert 20 <= value <= 110
    tokens = exported.of("ray_heliograph_target_tokens_total").values()
    assert len(tokens) == 2
    assert min(tokens) > 0.3 * max(tokens)


def test_the_dashboard_is_the_table_s(panels: ModuleType) -> None:
    assert panels.DASHBOARD.read_text(encoding="utf-8") == panels.text()
    dashboard = json.loads(panels.text())
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    assert len({(place["x"], place["y"]) for place in places}) == len(places)
