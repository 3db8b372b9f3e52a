"""Each panel and each rule asks for what a real run exports."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from heliograph.pipeline.training.stopwatch import PHASES
from tests.scraper import Scraper
from tests.small_plan import STEPS, Undisturbed

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture(scope="module")
def panels() -> ModuleType:
    spec = importlib.util.spec_from_file_location("panels", DEPLOY / "grafana" / "panels.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def exported(undisturbed: Undisturbed) -> Scraper:
    """All that Ray exported while two ranks trained."""
    return undisturbed.exported


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
    assert name.endswith("-undisturbed")
    assert exported.labels(seconds, "phase") == set(PHASES)
    for panel in panels.dashboard()["panels"]:
        for target in panel["targets"]:
            asked = metrics_of(target["expr"])
            for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
                if label != "instance":  # Prometheus' own
                    found = [exported.labels(metric, label) for metric in asked]
                    assert any(found), (panel["title"], label)


def test_the_counters_count_what_was_trained(exported: Scraper) -> None:
    """On each rank."""
    steps = exported.of("ray_heliograph_steps_total").values()
    assert list(steps) == [STEPS, STEPS]
    tokens = exported.of("ray_heliograph_target_tokens_total").values()
    assert len(tokens) == 2
    assert all(0 < value <= STEPS * 1024 for value in tokens)


def test_the_dashboard_is_the_table_s(panels: ModuleType) -> None:
    assert panels.DASHBOARD.read_text(encoding="utf-8") == panels.text()
    dashboard = json.loads(panels.text())
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    assert len({(place["x"], place["y"]) for place in places}) == len(places)
