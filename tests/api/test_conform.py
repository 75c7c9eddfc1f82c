"""The check of rendered objects against the schemas of every release refuses what it should."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

CONFORM = Path(__file__).parents[2] / "helm" / "conform.py"
JOB = {"model": {"name": "mlp"}, "dataset": {"uri": "builtin://digits"}}
MONITOR = {"selector": {}, "endpoints": [{"port": "http"}]}


def check(path: Path, *objects: tuple[str, str, object]) -> tuple[int, str]:
    documents = [
        {"apiVersion": version, "kind": kind, "metadata": {"name": f"{number}-{kind.lower()}"}, "spec": spec}
        for number, (version, kind, spec) in enumerate(objects)
    ]
    path.write_text(yaml.safe_dump_all(documents))
    answer = subprocess.run([sys.executable, CONFORM, path], capture_output=True, text=True, check=False)
    return answer.returncode, answer.stdout + answer.stderr


def test_misspelt_fields_of_every_kind_of_schema_are_found(tmp_path: Path) -> None:
    code, said = check(
        tmp_path / "objects.yaml",
        ("v1", "Service", {"port": []}),
        ("cyxwiz.io/v1alpha1", "TrainingJob", JOB | {"epoch": 5}),
        ("cyxwiz.io/v1alpha1", "TrainingJob", JOB | {"epochs": "five"}),
        ("monitoring.coreos.com/v1", "ServiceMonitor", MONITOR | {"endpoint": []}),
    )
    assert code == 1
    for words in ("'port' not allowed", "'epoch' not allowed", "want integer", "'endpoint' not allowed"):
        assert words in said, words


def test_right_ones_pass_in_every_release(tmp_path: Path) -> None:
    code, said = check(
        tmp_path / "objects.yaml",
        ("v1", "Service", {"ports": [{"port": 80}]}),
        ("cyxwiz.io/v1alpha1", "TrainingJob", JOB),
        ("monitoring.coreos.com/v1", "ServiceMonitor", MONITOR),
    )
    assert code == 0, said
    assert said.count("Invalid: 0, Errors: 0") >= 6
