"""Heliograph's Grafana dashboard, as a table of panels.

    python deploy/grafana/panels.py        # writes dashboards/heliograph.json beside it

tests/deploy/test_dashboards.py holds the file equal to this table, and each query to what a run
exports.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DASHBOARD = Path(__file__).parent / "dashboards" / "heliograph.json"

JOBS = 'job_name=~"$job"'
"""Ray's label `job` would be Prometheus' own name for what it scrapes."""
WINDOW = "$__rate_interval"
STEPS = f"rate(ray_heliograph_steps_total{{{JOBS}}}[{WINDOW}])"
SECONDS = f"rate(ray_heliograph_phase_seconds_total{{{JOBS}}}[{WINDOW}])"
TOKENS = f"rate(ray_heliograph_target_tokens_total{{{JOBS}}}[{WINDOW}])"


@dataclass(frozen=True)
class Panel:
    """One picture.

    Attributes:
        queries: legend and PromQL of each.
        stacked: the queries' lines are parts of a whole.
    """

    title: str
    what: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    stacked: bool = False
    width: int = 12


PANELS = (
    Panel(
        "Target tokens a second", "Of all ranks, padding not counted.", "short",
        (("{{job_name}}", f"sum by (job_name) ({TOKENS})"),),
    ),
    Panel(
        "Where a step's time goes",
        "Mean over the ranks. sync: gradients that backward does not hide, and waiting "
        "for slower ranks; data is waiting for the next batch.",
        "s",
        (("{{phase}}", f"sum by (phase) ({SECONDS}) / scalar(sum({STEPS}))"),),
        stacked=True,
    ),
    Panel(
        "The same by node", "Shares of all time: a node that waits (sync) waits for another one.",
        "percentunit",
        (("{{NodeAddress}} {{phase}}", f"sum by (NodeAddress, phase) ({SECONDS})"
          f" / on (NodeAddress) group_left sum by (NodeAddress) ({SECONDS})"),),
        stacked=True, width=24,
    ),
    Panel(
        "Target tokens a second by node", "Ranks get equal shares: a low node is a small one.",
        "short", (("{{NodeAddress}}", f"sum by (NodeAddress) ({TOKENS})"),),
    ),
    Panel(
        "Checkpoints and validations", "The share of time that training stands still for them.",
        "percentunit",
        (("{{phase}}", f"avg by (phase) (rate(ray_heliograph_phase_seconds_total{{{JOBS},"
          f'phase=~"checkpoint|validation"}}[{WINDOW}]))'),),
    ),
    Panel(
        "Steps", "Of the job, all its starts.", "short",
        (("{{job_name}}", f"max by (job_name) (ray_heliograph_step{{{JOBS}}})"),), width=8,
    ),
    Panel(
        "Loss", "Nats per target token.", "short",
        (("{{job_name}}", f"max by (job_name) (ray_heliograph_loss{{{JOBS}}})"),), width=8,
    ),
    Panel(
        "BLEU", "Of the last validation.", "short",
        (("{{job_name}}", f"max by (job_name) (ray_heliograph_bleu{{{JOBS}}})"),), width=8,
    ),
    Panel(
        "CPU by node", "Ray's own measurement.", "percent",
        (("{{instance}}", "ray_node_cpu_utilization"),),
    ),
    Panel(
        "Memory by node", "Ray's own measurement.", "bytes",
        (("{{instance}}", "ray_node_mem_used"),),
    ),
)  # fmt: skip


def dashboard() -> dict[str, Any]:
    """As Grafana reads it; panels side by side, 24 columns wide."""
    panels, x, y = [], 0, 0
    for number, panel in enumerate(PANELS, 1):
        if x + panel.width > 24:
            x, y = 0, y + 8
        panels.append(_panel(number, panel, x, y))
        x += panel.width
    return {
        "uid": "heliograph",
        "title": "Heliograph",
        "tags": ["heliograph", "ray"],
        "schemaVersion": 38,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {"list": [_datasource(), _jobs()]},
        "panels": panels,
    }


def _panel(number: int, panel: Panel, x: int, y: int) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    custom: dict[str, Any] = {"fillOpacity": 10}
    if panel.stacked:
        custom = {"fillOpacity": 60, "stacking": {"mode": "normal"}}
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.what,
        "datasource": source,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": 8},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "custom": custom}},
        "targets": [
            {"refId": chr(ord("A") + place), "datasource": source, "expr": query,
             "legendFormat": legend}
            for place, (legend, query) in enumerate(panel.queries)
        ],
    }  # fmt: skip


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "type": "datasource", "query": "prometheus", "hide": 2}


def _jobs() -> dict[str, Any]:
    return {
        "name": "job",
        "label": "Job",
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": "label_values(ray_heliograph_step, job_name)",
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def text() -> str:
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    DASHBOARD.write_text(text(), encoding="utf-8")
