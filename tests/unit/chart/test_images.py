"""Each image holds every package of ours that its process may import."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

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
