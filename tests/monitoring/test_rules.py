"""The chart's alerts, judged by Prometheus' own tool."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml

from cyxwiz_devcluster import find_or_build

RULES = Path(__file__).parents[2] / "helm" / "cyxwiz" / "files" / "rules.yaml"
TESTS = Path(__file__).with_name("rules_test.yaml")


def promtool(*arguments: str) -> None:
    command = [str(find_or_build("promtool")), *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_promtool_finds_no_fault_in_the_rules() -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", str(RULES))


def test_the_alerts_fire_on_what_they_are_for_and_are_silent_otherwise() -> None:
    promtool("test", "rules", str(TESTS))


def test_every_alert_is_seen_firing_and_silent() -> None:
    alerts = {rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}
    healthy, wrong = yaml.safe_load(TESTS.read_text())["tests"]
    assert {each["alertname"] for each in healthy["alert_rule_test"]} == alerts
    fired = " ".join(sample["labels"] for sample in wrong["promql_expr_test"][0]["exp_samples"])
    assert {name for name in alerts if f'"{name}"' in fired} == alerts
