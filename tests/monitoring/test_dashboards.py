"""The dashboards' queries and the alerts, answered by a real Prometheus that scrapes a whole installation at work."""

from __future__ import annotations

import json
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cyxwiz_devcluster import find_or_build, start
from cyxwiz_platform import Platform
from cyxwiz_platform.children import PlatformProcess
from cyxwiz_platform.platform import NAMESPACE, free_port
from tests.thread import apply_and_wait, digits, endless, finished, has_checkpoint, is_online, stepping

FILES = Path(__file__).parents[2] / "helm" / "cyxwiz" / "files"
JOB = "watched"
FILLED_WITHIN_S = 60.0
# Grafana's variables, as it would fill them in.
VARIABLES = {"$__rate_interval": "1m", "$node": ".*", "$namespace": "default", "$job": JOB}
# Panels without an answer on an installation where all is well, and why.
EMPTY = {
    "Errors the driver told of": "its series begins with the first error",
    "Error of the start that was told": "no job waited with an estimate",
    "GPU memory, peak": "the job trains on the CPU",
}


class Prometheus:
    """A server of its own that scrapes these addresses every second."""

    def __init__(self, folder: Path, targets: dict[str, int]) -> None:
        """`targets`: what runs there to its port. It is labelled as the chart's ServiceMonitor has it."""
        folder.mkdir()
        self.port = free_port()
        config = folder / "prometheus.yaml"
        config.write_text(yaml.safe_dump(self._config(targets)))
        flags = [f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}"]
        address = f"--web.listen-address=127.0.0.1:{self.port}"
        command = [str(find_or_build("prometheus")), *flags, address]
        self._process = PlatformProcess("prometheus", command, folder / "prometheus.log")

    def _config(self, targets: dict[str, int]) -> dict[str, Any]:
        def added(name: str) -> dict[str, str]:  # by a ServiceMonitor to every series of a pod
            return {"namespace": NAMESPACE, "pod": name, "node": name}

        jobs = [
            {
                "job_name": name,
                "honor_labels": True,
                "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": added(name)}],
            }
            for name, port in targets.items()
        ]
        interval = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        return {"global": interval, "scrape_configs": jobs, "rule_files": [str(FILES / "rules.yaml")]}

    def ask(self, path: str, **query: str) -> Any:
        """The `data` of an answer. Raises OSError while it does not answer, or refuses the query."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def until(self, path: str, true: Any, **query: str) -> Any:
        """The answer once `true` holds of it."""
        deadline = time.monotonic() + FILLED_WITHIN_S
        while True:
            try:
                if true(data := self.ask(path, **query)):
                    return data
                said: object = data
            except OSError as error:
                said = error
            if time.monotonic() > deadline:
                raise AssertionError(f"{path} {query}: {said}; log: {self._process.last_words()}")
            time.sleep(0.2)

    def stop(self) -> None:
        self._process.stop()


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """An operator, a machine with two simulated GPUs, one finished, one running and one waiting job."""
    folder = tmp_path_factory.mktemp("m")
    with start(folder / "c") as cluster, Platform(cluster, folder / "t") as platform:
        platform.install()
        machine = platform.add_machine("node-a", cpus=2, memory="4Gi", simulated_gpus=2)
        platform.start_operator()
        platform.wait_machines()
        platform.wait_for("computenode", "node-a", is_online, what="Online with trainers", within_s=300)
        server = Prometheus(folder / "p", {"operator": platform.metrics_port, "node-a": machine.agent_port})
        apply_and_wait(platform, digits("done", epochs=1), finished, "a final phase")
        apply_and_wait(platform, endless("stopped"), has_checkpoint, "a checkpoint")
        cluster.run_kubectl("patch", "tj", "stopped", "--type=merge", "-p", '{"spec":{"cancel":true}}')
        apply_and_wait(platform, endless(JOB), stepping, "training")
        apply_and_wait(platform, digits("waits", gpus=16), lambda job: "scheduling" in job.get("status", {}), "waiting")
        yield server
        server.stop()


def filled(query: str) -> str:
    for variable, value in VARIABLES.items():
        query = query.replace(variable, value)
    assert "$" not in query, query
    return query


def dashboards() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((FILES / "dashboards").glob("*.json"))]


PANELS = [
    (panel["title"], target["legendFormat"], target["expr"])
    for dashboard in dashboards()
    for panel in dashboard["panels"]
    for target in panel["targets"]
]
CHOICES = [
    variable["query"]
    for dashboard in dashboards()
    for variable in dashboard["templating"]["list"]
    if variable["type"] == "query"
]


@pytest.mark.parametrize(
    ("title", "legend", "query"), PANELS, ids=[f"{title}: {legend}" for title, legend, _ in PANELS]
)
def test_a_panel_has_something_to_show(prometheus: Prometheus, title: str, legend: str, query: str) -> None:
    result = prometheus.until("query", lambda data: data["result"] or title in EMPTY, query=filled(query))["result"]
    labels = {part.partition("}}")[0] for part in legend.split("{{")[1:]}
    assert all(labels <= series["metric"].keys() for series in result), "the legend names a label that it has not"


@pytest.mark.parametrize("choice", CHOICES)
def test_a_variable_has_values_to_choose_from(prometheus: Prometheus, choice: str) -> None:
    series, _, label = choice.removeprefix("label_values(").removesuffix(")").rpartition(", ")
    values = prometheus.until(f"label/{label}/values", bool, **{"match[]": filled(series)})
    assert values


def test_every_alert_is_evaluated_and_none_is_about_to_fire(prometheus: Prometheus) -> None:
    def evaluated(data: Any) -> bool:
        return all(rule["health"] != "unknown" for group in data["groups"] for rule in group["rules"])

    (group,) = prometheus.until("rules", evaluated)["groups"]
    assert {rule["health"] for rule in group["rules"]} == {"ok"}
    firing = [rule["name"] for rule in group["rules"] if rule["state"] == "firing"]
    assert firing == []
