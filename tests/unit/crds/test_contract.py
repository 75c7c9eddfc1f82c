"""The models, the schema made from them, and what is said to people."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cyxwiz_crds import Condition, TrainingJob, TrainingJobSpec, size_bytes, size_text, upsert
from cyxwiz_crds.__main__ import main
from cyxwiz_crds.crd import compute_node_crd, training_job_crd
from cyxwiz_crds.training_job import MUTABLE_SPEC_FIELDS

CHART = Path(__file__).parents[3] / "helm/cyxwiz"


def schemas() -> list[dict[str, Any]]:
    return [crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for crd in (training_job_crd(), compute_node_crd())]


def fields(node: dict[str, Any], path: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Every field of a schema with its path."""
    found: list[tuple[str, dict[str, Any]]] = []
    for name, child in node.get("properties", {}).items():
        found += [(f"{path}.{name}", child), *fields(child, f"{path}.{name}")]
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            found += [(f"{path}[]", node[key]), *fields(node[key], f"{path}[]")]
    return found


ALL_FIELDS = [
    (path, field)
    for schema in schemas()
    for path, field in fields(schema)
    if path.split(".")[1] not in ("metadata", "apiVersion", "kind")
]


def test_every_field_has_words_for_kubectl_explain() -> None:
    assert [path for path, field in ALL_FIELDS if not path.endswith("[]") and not field.get("description")] == []


def test_every_number_string_list_and_map_is_bounded() -> None:
    unbounded: list[str] = []
    for path, field in ALL_FIELDS:
        match field.get("type"):
            case "string":
                bounded = "maxLength" in field or "enum" in field
            case "integer" | "number":
                bounded = "minimum" in field and "maximum" in field
            case "array":
                bounded = "maxItems" in field
            case "object":
                bounded = "properties" in field or "maxProperties" in field
            case _:
                bounded = True
        if not bounded:
            unbounded.append(path)
    assert unbounded == []


def test_no_text_of_a_crd_has_what_a_structural_schema_forbids() -> None:
    text = json.dumps(schemas())
    for forbidden in ('"$ref"', '"title"', '"anyOf"', '"null"'):
        assert forbidden not in text


def test_the_committed_crds_are_the_generated_ones() -> None:
    assert main(["--check"]) == 0


def test_the_policies_of_the_chart_name_every_field_that_is_the_operators() -> None:
    policy = (CHART / "templates/agent-policy.yaml").read_text()
    for schema, agents in zip(schemas(), ({"execution"}, {"inventory", "agent"}), strict=True):
        for field in set(schema["properties"]["status"]["properties"]) - agents:
            assert f'"{field}"' in policy


def test_the_policy_of_the_chart_names_every_field_of_a_job_that_must_stay() -> None:
    policy = (CHART / "templates/spec-policy.yaml").read_text()
    fixed = set(schemas()[0]["properties"]["spec"]["properties"]) - MUTABLE_SPEC_FIELDS
    assert set(re.findall(r'"(\w+)"', policy.partition("list ")[2].partition("}}")[0])) == fixed


def test_an_older_reader_ignores_what_a_newer_writer_adds() -> None:
    spec = {"model": {"name": "cnn", "newer": 1}, "dataset": {"uri": "builtin://digits"}, "newer": {}}
    job = TrainingJob.model_validate({"metadata": {"name": "j"}, "spec": spec, "status": {"phase": "Newer"}})
    assert (job.spec.epochs, job.status.phase) == (5, "Newer")


def test_a_value_says_the_same_after_the_wire() -> None:
    spec = TrainingJobSpec.model_validate({"model": {"name": "cnn"}, "dataset": {"uri": "builtin://digits"}})
    assert TrainingJobSpec.model_validate(spec.wire()) == spec
    assert "gpuMemory" not in json.dumps(spec.wire())


def test_not_a_number_is_no_learning_rate() -> None:
    with pytest.raises(ValidationError):
        TrainingJobSpec.model_validate(
            {"model": {"name": "c"}, "dataset": {"uri": "u"}, "hyperparameters": {"learningRate": float("nan")}}
        )


@pytest.mark.parametrize(
    ("text", "size"), [("1M", 10**6), ("512Mi", 512 * 2**20), ("4GB", 4 * 10**9), ("1.5Gi", 3 * 2**29), ("2Ti", 2**41)]
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert size_bytes(text) == size


@pytest.mark.parametrize("text", ["", "8", "4m", "4 GB", "-1Gi", "Gi", "1e3M", "1Pi", "٣Gi"])
def test_what_is_no_size_is_refused_with_the_forms_that_are(text: str) -> None:
    with pytest.raises(ValueError, match="such as 512Mi or 8Gi"):
        size_bytes(text)


@given(st.integers(2**20, 2**46))
def test_a_size_told_is_within_a_tenth_of_its_unit(size: int) -> None:
    assert abs(size_bytes(size_text(size)) - size) <= 0.06 * size


def test_a_condition_keeps_its_time_until_its_status_changes() -> None:
    first = upsert([], [Condition(type="Running", status="True", reason="Training")], "t1")
    second = upsert(first, [Condition(type="Running", status="True", reason="Resumed")], "t2")
    third = upsert(second, [Condition(type="Running", status="False")], "t3")
    assert [c[0].last_transition_time for c in (first, second, third)] == ["t1", "t1", "t3"]
    assert second[0].reason == "Resumed"
