"""The agent's last word: nothing is admitted beyond what the node lends."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyxwiz_agent.admission import Capacity, refuse
from cyxwiz_crds import TrainingJobSpec
from cyxwiz_protocol.runner_api import JobProcess

NODE = Capacity(gpus=frozenset({"GPU-a", "GPU-b"}), cpus=4, memory_bytes=8 * 2**30, max_jobs=3)


def make_spec(**resources: Any) -> TrainingJobSpec:
    return TrainingJobSpec.model_validate(
        {"model": {"name": "cnn"}, "dataset": {"uri": "builtin://digits"}, "resources": {"gpus": 0, **resources}}
    )


def make_process(cpus: int = 1, memory_bytes: int = 2**30, gpus: list[str] | None = None) -> JobProcess:
    body = {"assignmentId": "u-1", "jobUid": "u", "attempt": 1, "key": "team/other", "state": "Running"}
    return JobProcess.model_validate(body | {"cpus": cpus, "memoryBytes": memory_bytes, "gpus": gpus or []})


@pytest.mark.parametrize(
    ("resources", "gpus", "present", "reason"),
    [
        ({"cpus": 4}, [], [], None),
        ({"cpus": 5}, [], [], "NoFreeCPU"),
        ({"cpus": 2}, [], [make_process(cpus=3)], "NoFreeCPU"),
        ({"memory": "8Gi"}, [], [], None),
        ({"memory": "8Gi"}, [], [make_process()], "NoFreeMemory"),
        ({}, ["GPU-a"], [make_process(gpus=["GPU-b"])], None),
        ({}, ["GPU-a"], [make_process(gpus=["GPU-a"])], "NoFreeGPU"),
        ({}, ["GPU-z"], [], "NoFreeGPU"),
        ({}, [], [make_process()] * 3, "TooManyJobs"),
    ],
)
def test_a_job_is_refused_for_the_first_thing_that_is_missing(
    resources: dict[str, Any], gpus: list[str], present: list[JobProcess], reason: str | None
) -> None:
    refusal = refuse(make_spec(**resources), gpus, NODE, present)
    assert (refusal.reason if refusal else None) == reason


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 9)), max_size=12))
def test_what_is_admitted_never_exceeds_the_node(wishes: list[tuple[int, int]]) -> None:
    present: list[JobProcess] = []
    for cpus, gibibytes in wishes:
        if refuse(make_spec(cpus=cpus, memory=f"{gibibytes}Gi"), [], NODE, present) is None:
            present.append(make_process(cpus, gibibytes * 2**30))
    assert sum(job.cpus for job in present) <= NODE.cpus
    assert sum(job.memory_bytes for job in present) <= NODE.memory_bytes
    assert len(present) <= NODE.max_jobs
