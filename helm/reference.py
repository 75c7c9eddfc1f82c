"""Writes docs/values.md from the chart's values.yaml: `python helm/reference.py`, or `--check` to compare."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

VALUES = Path(__file__).parent / "cyxwiz" / "values.yaml"
PAGE = Path(__file__).parents[1] / "docs" / "values.md"
HEAD = """\
# Values of the chart

Written from `helm/cyxwiz/values.yaml` by `make generate`. A name that is not here, or a value of another type, fails.

| value | default | |
| --- | --- | --- |
"""
_KEY = re.compile(r"^( *)([A-Za-z0-9_]+):")


def commented(text: str) -> Iterator[tuple[str, str]]:
    """Each key as a dotted path with the comment above it, in order; entries of lists have none."""
    path: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("#"):
            comment.append(_cell(stripped.removeprefix("#")))
        elif (match := _KEY.match(line)) is not None:
            indent = len(match[1])
            path = [(depth, name) for depth, name in path if depth < indent]
            path.append((indent, match[2]))
            yield ".".join(name for _, name in path), " ".join(comment)
            comment = []
        else:
            comment = []


def _cell(line: str) -> str:
    """A line of a comment in a cell: an indented one is an entry of a list and stays a line, unless it goes on so far
    to the right that it is the rest of the one above."""
    indent = len(line) - len(line.lstrip())
    return ("<br>" if 2 < indent < 12 else "") + line.strip()


def value_of(values: Any, path: str) -> Any:
    for name in path.split("."):
        values = values[name]
    return values


def page() -> str:
    """The whole page."""
    text = VALUES.read_text()
    values = yaml.safe_load(text)
    lines: list[str] = []
    for path, comment in commented(text):
        if path.rpartition(".")[2] in ("requests", "limits"):  # of resources, which are one value
            continue
        value = value_of(values, path)
        inner = isinstance(value, dict) and value and not path.endswith(".resources")
        comment = " ".join(comment.split())
        default = "" if inner else f"`{json.dumps(value)}`"
        lines.append(f"| `{path}` | {default} | {comment.replace('|', chr(92) + '|')} |")
    return HEAD + "\n".join(lines) + "\n"


def _is_leaf(path: str) -> bool:
    """Whether it is a value by itself; that of resources is one."""
    value = value_of(yaml.safe_load(VALUES.read_text()), path)
    inside = path.rpartition(".")[2] in ("requests", "limits", "grafana_dashboard")
    return not inside and (not isinstance(value, dict) or not value)


def main(check: bool) -> int:
    """The exit code."""
    if not check:
        PAGE.write_text(page())
    elif bare := [path for path, comment in commented(VALUES.read_text()) if not comment and _is_leaf(path)]:
        print(f"{VALUES} says nothing about {', '.join(bare)}: write a comment above each")
        return 1
    elif not PAGE.exists() or PAGE.read_text() != page():
        print(f"{PAGE} is not what helm/reference.py writes: run make generate")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
