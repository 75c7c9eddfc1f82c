"""Rules by which the API server refuses a change of spec: at the leaves, because there they cost next to nothing.

CEL rules are evaluated on every write of an object, also on one that touches its status alone. Each step through an
object with properties copies its table of properties (`Structural.Properties` of apiextensions 1.36), so a rule at
the top of a wide object that compares its fields costs a hundred times as much as `self == oldSelf` at a number.
A rule at a field is skipped when the field appears or disappears; that is refused by a rule of the object around it,
which only fields without a default need: the others are always there.
"""

from __future__ import annotations

from typing import Any

RULES = "x-kubernetes-validations"


def make_immutable(spec: dict[str, Any], mutable: frozenset[str]) -> None:
    """Each field of the schema that is not in `mutable` refuses changes, in a sentence that names it."""
    for name in sorted(set(spec["properties"]) - mutable):
        sentence = f"{name} cannot be changed: use a new metadata.name, or generateName with kubectl create"
        if name in _optional(spec):
            _add(spec, _stays(name), sentence, fieldPath=f".{name}")
        _keep(spec["properties"][name], sentence)


def _keep(field: dict[str, Any], sentence: str) -> None:
    if "properties" not in field:
        _add(field, "self == oldSelf", sentence)
        return
    for child in field["properties"].values():
        _keep(child, sentence)
    if optional := _optional(field):
        _add(field, " && ".join(_stays(name) for name in optional), sentence)


def _optional(field: dict[str, Any]) -> list[str]:
    """Properties that may be absent."""
    required = field.get("required", ())
    return [name for name, child in field["properties"].items() if "default" not in child and name not in required]


def _stays(name: str) -> str:
    return f"has(self.{name}) == has(oldSelf.{name})"


def _add(field: dict[str, Any], rule: str, message: str, **more: str) -> None:
    field[RULES] = [*field.get(RULES, ()), {"rule": rule, "message": message, **more}]
