"""Every series that a rule or a dashboard of the chart names is one that operator or agent make."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from cyxwiz_agent.devices import DeviceMonitor
from cyxwiz_agent.metrics import Metrics as AgentMetrics
from cyxwiz_agent.series import DeviceSeries, JobSeries
from cyxwiz_operator.metrics import Metrics as OperatorMetrics

FILES = Path(__file__).parents[3] / "helm" / "cyxwiz" / "files"
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}


def known() -> set[str]:
    """Names as Prometheus stores them."""
    agent = AgentMetrics().registry
    agent.register(DeviceSeries(DeviceMonitor(lambda: None)))
    agent.register(JobSeries(lambda: ()))
    families = [*agent.collect(), *OperatorMetrics()._registry.collect()]
    return {family.name + suffix for family in families for suffix in SUFFIXES[family.type]}


def rules() -> list[tuple[str, str]]:
    document = yaml.safe_load((FILES / "rules.yaml").read_text())
    return [(rule["alert"], rule["expr"]) for group in document["groups"] for rule in group["rules"]]


def panels() -> list[tuple[str, str]]:
    return [
        (f"{path.stem}/{panel['title']}", target["expr"])
        for path in sorted((FILES / "dashboards").glob("*.json"))
        for panel in json.loads(path.read_text())["panels"]
        for target in panel["targets"]
    ]


QUERIES = [*rules(), *panels()]


@pytest.mark.parametrize(("where", "query"), QUERIES, ids=[where for where, _ in QUERIES])
def test_a_query_asks_for_series_that_exist(where: str, query: str) -> None:
    named = set(re.findall(r"\bcyxwiz_\w+", query))
    assert named, query
    assert named <= known(), where


def test_the_alerts_an_operator_of_a_cluster_needs_are_there() -> None:
    assert {name for name, _ in rules()} >= {
        "CyxwizNodeOffline",
        "CyxwizGpuUnhealthy",
        "CyxwizJobStalled",
        "CyxwizQueueNotMoving",
        "CyxwizOperatorNotReconciling",
        "CyxwizEstimatesWrong",
        "CyxwizApiWritesFailing",
    }
