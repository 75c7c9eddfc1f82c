"""pydantic models to the structural OpenAPI schema that a CustomResourceDefinition wants.

Kubernetes takes no `$ref`, no `title`, no `null` branch and no `default: null`; anything this module does not know
how to translate is an error here and not a surprise on the server.
"""

from __future__ import annotations

import inspect
from typing import Any

from .base import Model

_DROPPED = frozenset({"title", "$defs"})


def structural(model: type[Model]) -> dict[str, Any]:
    """The structural schema of `model`: references inlined, defaults without nulls, descriptions on every field."""
    document = model.model_json_schema(by_alias=True, mode="validation")
    definitions: dict[str, Any] = document.get("$defs", {})
    return _translate(document, definitions, model.__name__)


def _translate(node: dict[str, Any], definitions: dict[str, Any], path: str) -> dict[str, Any]:
    node = _resolve(node, definitions)
    if "anyOf" in node:
        node = _without_null(node, definitions, path)
    result: dict[str, Any] = {}
    for key, value in node.items():
        # An empty list or map says nothing that its absence does not.
        if key in _DROPPED or (key == "default" and value in (None, [], {})):
            continue
        match key:
            case "properties":
                result[key] = {name: _translate(child, definitions, f"{path}.{name}") for name, child in value.items()}
            case "items":
                result[key] = _translate(value, definitions, f"{path}[]")
            case "additionalProperties" if isinstance(value, dict):
                result[key] = _translate(value, definitions, f"{path}{{}}")  # pyright: ignore[reportUnknownArgumentType]  # JSON
            case "propertyNames":
                continue  # CRDs cannot bound names of a map
            case "exclusiveMinimum" | "exclusiveMaximum":
                # OpenAPI v3.0, which CRDs follow, has a number and a flag where JSON Schema has one number.
                result[key.removeprefix("exclusive").lower()] = value
                result[key] = True
            case "const":
                result["enum"] = [value]
            case "default":
                result[key] = _without_nulls(value)
            case "description":
                result[key] = inspect.cleandoc(value).replace("\n", " ")
            case _:
                result[key] = value
    return result


def _resolve(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """`node` with its reference replaced by what it names; what stands beside the reference wins."""
    reference = node.get("$ref")
    if reference is None:
        return node
    name = str(reference).removeprefix("#/$defs/")
    beside = {key: value for key, value in node.items() if key != "$ref"}
    return {**definitions[name], **beside}


def _without_null(node: dict[str, Any], definitions: dict[str, Any], path: str) -> dict[str, Any]:
    """The one branch of `anyOf` that is not null, or an int-or-string."""
    beside = {key: value for key, value in node.items() if key != "anyOf"}
    if node.get("x-kubernetes-int-or-string"):
        return beside
    branches = [branch for branch in node["anyOf"] if branch.get("type") != "null"]
    if len(branches) != 1:
        raise ValueError(f"{path}: a structural schema has no anyOf; give the field one type")
    return {**_resolve(branches[0], definitions), **beside}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}  # pyright: ignore[reportUnknownVariableType]  # JSON
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]  # pyright: ignore[reportUnknownVariableType]  # JSON
    return value
