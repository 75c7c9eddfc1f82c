"""Writes docs/reference.md from the models of the resources: `python crds/reference.py`, or `--check` to compare.

It also looks whether docs/troubleshoot.md explains every phase, condition and reason that a status may show.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cyxwiz_crds import ConditionType, Failure, NodePhase, Phase, Reason, Rejection
from cyxwiz_crds.crd import compute_node_crd, training_job_crd
from cyxwiz_crds.training_job import MUTABLE_SPEC_FIELDS

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "reference.md"
EXPLAINED_IN = DOCS / "troubleshoot.md"
VOCABULARIES = (Phase, NodePhase, ConditionType, Reason, Failure, Rejection)
HEAD = """\
# Every field of TrainingJob and ComputeNode

Written from the models in `crds/cyxwiz_crds` by `make generate`; `kubectl explain tj.spec --recursive` says the same.
Fields in bold are required where the one they belong to is there. `[]` is an entry of a list, `{}` a value of a map.
"""
TABLE = "| field | type | |\n| --- | --- | --- |\n"
Schema = dict[str, Any]


def page() -> str:
    """The whole page."""
    return HEAD + "".join(_resource(crd) for crd in (training_job_crd(), compute_node_crd()))


def _resource(crd: Schema) -> str:
    (version,) = crd["spec"]["versions"]
    names = crd["spec"]["names"]
    schema = version["schema"]["openAPIV3Schema"]
    short = f" (`{'`, `'.join(names['shortNames'])}`)" if names.get("shortNames") else ""
    text = f"\n# {names['kind']}{short}\n\n`{crd['spec']['group']}/{version['name']}`. {schema['description']}\n"
    for part in ("spec", "status"):
        fields = schema["properties"][part]
        text += f"\n## {names['kind']}.{part}\n\n{fields.get('description', '')}\n\n{TABLE}"
        text += "".join(f"| {name} | {kind} | {words} |\n" for name, kind, words in _rows(fields, ""))
    if rules := list(dict.fromkeys(_rules(schema["properties"]["spec"]))):
        text += f"\n## What the API server refuses in a {names['kind']}\n\n"
        fixed = [name for name in schema["properties"]["spec"]["properties"] if name not in MUTABLE_SPEC_FIELDS]
        text += "".join(f"- {rule}\n" for rule in rules)
        text += f"- a change of `{'`, `'.join(fixed)}`: use a new metadata.name, or generateName with kubectl create\n"
    return text


def _rows(schema: Schema, path: str) -> Iterator[tuple[str, str, str]]:
    required = set(schema.get("required", ()))
    for name, field in schema.get("properties", {}).items():
        here = f"{path}{name}"
        yield (f"**`{here}`**" if name in required else f"`{here}`"), _type(field), _cell(_words(field))
        yield from _inner(field, here)


def _inner(field: Schema, path: str) -> Iterator[tuple[str, str, str]]:
    yield from _rows(field, f"{path}.")
    for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(inner := field.get(key), dict):
            yield from _inner(inner, path + mark)


def _type(field: Schema) -> str:
    if field.get("x-kubernetes-int-or-string"):
        return "integer or string"
    if isinstance(inner := field.get("additionalProperties"), dict):
        return f"map of {_type(inner)}"
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}"
    return "time" if field.get("format") == "date-time" else str(field.get("type", "object"))


def _words(field: Schema) -> str:
    said = [field.get("description", "")]
    if choices := field.get("enum"):
        said.append(f"One of {', '.join(f'`{choice}`' for choice in choices)}.")
    low, high = field.get("minimum"), field.get("maximum")
    above, below = ("more than " if field.get(f"exclusive{end}") else "" for end in ("Minimum", "Maximum"))
    if low is not None and high is not None:
        said.append(f"From {above}{low} to {'less than ' if below else ''}{high}.")
    elif low is not None:
        said.append(f"{above.capitalize() or 'At least '}{low}.")
    elif high is not None:
        said.append(f"{'Less than' if below else 'At most'} {high}.")
    if "default" in field and not field.get("properties"):  # that of an object is its fields'
        said.append(f"Default: `{json.dumps(field['default'])}`.")
    return " ".join(filter(None, said))


def _rules(schema: Schema) -> Iterator[str]:
    """Messages of the rules on what people write, in the order of the schema."""
    for rule in schema.get("x-kubernetes-validations", ()):
        yield rule["message"]
    for field in schema.get("properties", {}).values():
        yield from _rules(field)
    for key in ("items", "additionalProperties"):
        if isinstance(inner := schema.get(key), dict):
            yield from _rules(inner)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def unexplained() -> list[str]:
    """What a status may say and the page on troubles does not."""
    words = {word for each in VOCABULARIES for name, word in vars(each).items() if name.isupper()}
    text = EXPLAINED_IN.read_text()
    return sorted(word for word in words if f"`{word}`" not in text)


def main(check: bool) -> int:
    """The exit code."""
    if missing := unexplained():
        print(f"{EXPLAINED_IN} says nothing of {', '.join(missing)}: add a line of cause and remedy for each")
        return 1
    if not check:
        PAGE.write_text(page())
    elif not PAGE.exists() or PAGE.read_text() != page():
        print(f"{PAGE} is not what crds/reference.py writes: run make generate")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
