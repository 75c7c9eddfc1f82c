"""Each image holds every package of ours that its process may import, and says what it is and what is in it."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

import cyxwiz_crds

ROOT = Path(__file__).parents[3]
IMAGES = [
    ("Dockerfile.operator", None, ["cyxwiz_operator"]),
    ("Dockerfile.agent", "agent", ["cyxwiz_agent"]),
    ("Dockerfile.agent", "runner", ["cyxwiz_runner", "cyxwiz_trainer"]),
]


def copied(dockerfile: str, stage: str | None) -> set[str]:
    """The packages that a stage copies to /app."""
    text = (ROOT / dockerfile).read_text()
    if stage is not None:
        (text,) = (part for part in re.split(r"(?m)^FROM ", text)[1:] if part.splitlines()[0].endswith(f"AS {stage}"))
    return set(re.findall(r"(?m)^COPY \S+ /app/(\w+)$", text))


def imported(package: str) -> set[str]:
    """Packages of ours that any file of it imports, at any depth."""
    (folder,) = ROOT.glob(f"*/{package}")
    found: set[str] = set()
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                found.add(node.module.partition(".")[0])
    return {name for name in found if name.startswith("cyxwiz_")} - {package}


@pytest.mark.parametrize(("dockerfile", "stage", "started"), IMAGES, ids=["operator", "agent", "runner"])
def test_an_image_has_what_its_process_imports(dockerfile: str, stage: str | None, started: list[str]) -> None:
    needed, unseen = set(started), list(started)
    while unseen:
        new = imported(unseen.pop()) - needed
        needed |= new
        unseen += new
    assert needed <= copied(dockerfile, stage), f"missing in {dockerfile}: {needed - copied(dockerfile, stage)}"


@pytest.mark.parametrize("dockerfile", ["Dockerfile.operator", "Dockerfile.agent"])
def test_an_image_says_the_version_of_the_packages_and_the_chart(dockerfile: str) -> None:
    (version,) = re.findall(r"(?m)^ARG VERSION=(\S+)$", (ROOT / dockerfile).read_text())
    chart = yaml.safe_load((ROOT / "helm" / "cyxwiz" / "Chart.yaml").read_text())
    assert version == cyxwiz_crds.__version__ == chart["appVersion"]


def test_a_bill_of_materials_names_every_package_with_its_version_and_licence() -> None:
    command = [sys.executable, ROOT / "images" / "sbom.py", "cyxwiz-operator"]
    first, again = (subprocess.run(command, capture_output=True, check=True).stdout for _ in range(2))
    assert first == again, "the same packages give the same layer"
    bill = json.loads(first)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    found = {each["purl"]: each for each in bill["components"]}
    assert len(found) == len(bill["components"])
    pydantic = found[f"pkg:pypi/pydantic@{version('pydantic')}"]
    assert pydantic["licenses"] == [{"expression": "MIT"}]
    python = [each for purl, each in found.items() if purl.startswith("pkg:pypi/")]
    assert sum("licenses" in each for each in python) > 0.9 * len(python)
