"""Writes the chart's Grafana dashboards: `python helm/dashboards.py`, or `--check` to compare with what is committed.

A dashboard is a list of rows of panels; a panel is a title, a unit and its queries with their legends.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "cyxwiz" / "files" / "dashboards"
WIDTH, HEIGHT = 24, 8
Json = dict[str, Any]


@dataclass(frozen=True)
class Panel:
    title: str
    queries: dict[str, str]
    """Legend to PromQL; a legend may hold {{label}}."""
    unit: str = "short"
    kind: str = "timeseries"
    description: str = ""


@dataclass(frozen=True)
class Dashboard:
    name: str
    title: str
    rows: tuple[tuple[Panel, ...], ...]
    variables: dict[str, str]
    """Name to the PromQL function that lists its values."""


def quantiles(series: str, by: str = "") -> dict[str, str]:
    """Median and 95th percentile of a histogram."""
    labels = f"le, {by}" if by else "le"
    legend = f" {{{{{by}}}}}" if by else ""
    return {
        f"{name}{legend}": f"histogram_quantile({share}, sum by ({labels}) (rate({series}_bucket[$__rate_interval])))"
        for name, share in (("median", 0.5), ("95 %", 0.95))
    }


FLEET = Dashboard(
    "fleet",
    "CyxWiz / Fleet",
    (
        (
            Panel("Nodes by phase", {"{{phase}}": "sum by (phase) (cyxwiz_nodes)"}),
            Panel("Running jobs", {"jobs": "sum(cyxwiz_agent_jobs)"}, kind="stat"),
            Panel(
                "GPUs by health",
                {"{{state}}": 'count by (state) (cyxwiz_gpu_health{node=~"$node"})'},
                description="Jobs are given healthy GPUs alone.",
            ),
        ),
        (
            Panel(
                "GPU utilization",
                {"{{node}} {{uuid}}": 'cyxwiz_gpu_utilization_ratio{node=~"$node"}'},
                unit="percentunit",
                description="Share of time in which any kernel ran; it says nothing about how well.",
            ),
            Panel(
                "GPU memory in use",
                {
                    "{{node}} {{uuid}}": '1 - cyxwiz_gpu_memory_free_bytes{node=~"$node"} / '
                    '(cyxwiz_gpu_memory_total_bytes{node=~"$node"} - cyxwiz_gpu_memory_reserved_bytes{node=~"$node"})'
                },
                unit="percentunit",
            ),
        ),
        (
            Panel("Power", {"{{node}}": 'sum by (node) (cyxwiz_gpu_power_watts{node=~"$node"})'}, unit="watt"),
            Panel(
                "Temperature", {"{{node}} {{uuid}}": 'cyxwiz_gpu_temperature_celsius{node=~"$node"}'}, unit="celsius"
            ),
            Panel(
                "Errors the driver told of",
                {"{{node}} {{uuid}} XID {{xid}}": 'increase(cyxwiz_gpu_xid_total{node=~"$node"}[$__rate_interval])'},
            ),
        ),
        (
            Panel(
                "Lease epochs",
                {"{{node}}": 'changes(cyxwiz_agent_lease_epoch{node=~"$node"}[1h])'},
                description="A new epoch means that an agent lost touch with the API server, or was started again.",
            ),
            Panel(
                "Reports refused",
                {"{{node}}": 'rate(cyxwiz_agent_reports_refused_total{node=~"$node"}[$__rate_interval])'},
            ),
        ),
    ),
    {"node": "label_values(cyxwiz_agent_jobs, node)"},
)

_JOB = '{namespace="$namespace", name="$job"}'
JOB = Dashboard(
    "job",
    "CyxWiz / One job",
    (
        (
            Panel("Epoch", {"done of {{name}}": f"cyxwiz_job_epoch{_JOB}"}, kind="stat"),
            Panel("Steps done", {"share": f"cyxwiz_job_step{_JOB} / cyxwiz_job_steps{_JOB}"}, "percentunit", "stat"),
            Panel("Samples per second", {"{{node}}": f"cyxwiz_job_samples_per_second{_JOB}"}),
        ),
        (
            Panel(
                "Loss",
                {"training": f"cyxwiz_job_loss{_JOB}", "validation": f"cyxwiz_job_validation_loss{_JOB}"},
            ),
            Panel(
                "Accuracy",
                {"training": f"cyxwiz_job_accuracy{_JOB}", "validation": f"cyxwiz_job_validation_accuracy{_JOB}"},
                unit="percentunit",
            ),
        ),
        (
            Panel("Learning rate", {"rate": f"cyxwiz_job_learning_rate{_JOB}"}, unit="sci"),
            Panel("GPU memory, peak", {"peak": f"cyxwiz_job_gpu_memory_peak_bytes{_JOB}"}, unit="bytes"),
        ),
    ),
    {
        "namespace": "label_values(cyxwiz_job_step, namespace)",
        "job": 'label_values(cyxwiz_job_step{namespace="$namespace"}, name)',
    },
)

SCHEDULER = Dashboard(
    "scheduler",
    "CyxWiz / Scheduler",
    (
        (
            Panel("Waiting jobs by reason", {"{{reason}}": "sum by (reason) (cyxwiz_queue_jobs)"}),
            Panel("Wait until bound", quantiles("cyxwiz_queue_wait_seconds", "reason"), "s"),
        ),
        (
            Panel("From creation to the first step", quantiles("cyxwiz_time_to_first_step_seconds"), "s"),
            Panel("From binding to the first step", quantiles("cyxwiz_start_seconds"), "s"),
            Panel("From creation to binding", quantiles("cyxwiz_bind_latency_seconds"), "s"),
        ),
        (
            Panel(
                "Error of the start that was told",
                quantiles("cyxwiz_start_estimate_error_seconds", "confidence"),
                "s",
            ),
            Panel(
                "Ends by outcome", {"{{outcome}}": "sum by (outcome) (rate(cyxwiz_attempts_total[$__rate_interval]))"}
            ),
            Panel(
                "Training lost",
                {"{{outcome}}": "sum by (outcome) (rate(cyxwiz_lost_training_seconds_total[$__rate_interval]))"},
                description="Seconds of training since the last checkpoint, lost per second.",
            ),
        ),
        (
            Panel("Decision", quantiles("cyxwiz_decision_seconds"), "s"),
            Panel(
                "Passes",
                {
                    "finished": "sum(rate(cyxwiz_passes_total[$__rate_interval]))",
                    "failed": "sum(rate(cyxwiz_pass_failures_total[$__rate_interval]))",
                },
                "ops",
            ),
            Panel(
                "Writes",
                {"{{kind}} {{result}}": "sum by (kind, result) (rate(cyxwiz_api_writes_total[$__rate_interval]))"},
                "ops",
            ),
        ),
        (
            Panel("Writes not seen back", {"entries": "sum(cyxwiz_ledger_entries)"}),
            Panel("Jobs that cannot be read", {"jobs": "sum(cyxwiz_unreadable_jobs)"}, kind="stat"),
            Panel("Outage suspected", {"gate": "max(cyxwiz_loss_gate_shut)"}, kind="stat"),
            Panel("Preemptions", {"jobs": "sum(increase(cyxwiz_preemptions_total[$__rate_interval]))"}),
        ),
    ),
    {},
)

DASHBOARDS = (FLEET, JOB, SCHEDULER)


def render(dashboard: Dashboard) -> str:
    """The dashboard as Grafana imports it."""
    panels: list[Json] = []
    for row, contents in enumerate(dashboard.rows):
        width = WIDTH // len(contents)
        for column, panel in enumerate(contents):
            position = {"x": column * width, "y": row * HEIGHT, "w": width, "h": HEIGHT}
            panels.append(_panel(panel, len(panels) + 1, position))
    document = {
        "uid": f"cyxwiz-{dashboard.name}",
        "title": dashboard.title,
        "tags": ["cyxwiz"],
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [_DATASOURCE, *(_variable(*item) for item in dashboard.variables.items())]},
        "panels": panels,
    }
    return json.dumps(document, indent=1) + "\n"


_DATASOURCE = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def _variable(name: str, query: str) -> Json:
    many = name == "node"
    every = {"multi": True, "includeAll": True, "allValue": ".*"} if many else {}
    return {"name": name, "type": "query", "datasource": _SOURCE, "query": query, "refresh": 2, "sort": 1, **every}


def _panel(panel: Panel, number: int, position: Json) -> Json:
    targets = [
        {"refId": chr(ord("A") + index), "expr": expr, "legendFormat": legend, "datasource": _SOURCE}
        for index, (legend, expr) in enumerate(panel.queries.items())
    ]
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "gridPos": position,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": targets,
    }


def main(check: bool) -> int:
    """The exit code."""
    wrong = 0
    for dashboard in DASHBOARDS:
        path = FOLDER / f"{dashboard.name}.json"
        content = render(dashboard)
        if check:
            if not path.exists() or path.read_text() != content:
                print(f"{path} is not what helm/dashboards.py writes: run make generate")
                wrong = 1
        else:
            FOLDER.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
    return wrong


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
