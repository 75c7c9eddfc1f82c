"""The agent's last word: nothing is admitted beyond what the node lends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyxwiz_agent.admission import Capacity, refuse
from cyxwiz_agent.gpu_room import CONTEXT_MIB, IDLE_MIB, GpuRoom
from cyxwiz_crds import TrainingJobSpec
from cyxwiz_crds.compute_node import Gpu
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


def test_a_gpu_that_is_ill_is_refused_with_what_it_has() -> None:
    ill = replace(NODE, unusable={"GPU-a": "Unhealthy (XID 79: fallen off the bus)"})
    refusal = refuse(make_spec(), ["GPU-a"], ill, [])
    assert refusal is not None
    assert refusal.message == "GPU-a is Unhealthy (XID 79: fallen off the bus)"
    assert refuse(make_spec(), ["GPU-b"], ill, []) is None


def make_share(gibibytes: int | None, gpu: str = "GPU-a") -> JobProcess:
    size = None if gibibytes is None else gibibytes * 2**30
    return make_process(memory_bytes=0, gpus=[gpu]).model_copy(update={"cpus": 0, "gpu_memory_bytes": size})


@pytest.mark.parametrize(
    ("gpu_memory", "present", "context_mib", "message"),
    [
        ("4Gi", [make_share(4)], 1024, None),
        ("4Gi", [make_share(4), make_share(4)], 0, None),
        ("4Gi", [make_share(4), make_share(4)], 1024, "2Gi left beside 2 jobs, the job needs 4Gi and 1Gi for its CUDA"),
        ("8Gi", [make_share(5)], 0, "7Gi left beside 1 jobs, the job needs 8Gi"),
        ("4Gi", [make_share(None)], 0, "GPU GPU-a is in use by team/other"),  # which has it whole
        (None, [make_share(4)], 0, "GPU GPU-a is in use by team/other"),
        ("12Gi", [], 1024, None),  # alone it may have all of it
        ("12Gi", [make_share(12, "GPU-b")], 1024, None),
    ],
)
def test_jobs_share_a_gpu_when_all_name_gpu_memory_and_it_fits(
    gpu_memory: str | None, present: list[JobProcess], context_mib: int, message: str | None
) -> None:
    spec = make_spec(gpus=1, cpus=1, memory="1Mi", gpuMemory=gpu_memory)
    refusal = refuse(spec, ["GPU-a"], NODE, present, GpuRoom({"GPU-a": 12 * 1024}, context_mib))
    assert (refusal is None) is (message is None)
    assert refusal is None or message is None or message in refusal.message


def test_without_a_known_size_no_gpu_is_shared() -> None:
    refusal = refuse(make_spec(gpus=1, gpuMemory="1Gi"), ["GPU-a"], NODE, [make_share(1)])
    assert refusal is not None
    assert "0B left" in refusal.message


def test_what_the_driver_keeps_and_under_time_slices_each_context_is_not_lent() -> None:
    gpu = Gpu.model_validate({"uuid": "GPU-a", "name": "x", "memoryTotalMiB": 1000, "memoryReservedMiB": 100})
    assert GpuRoom.of([gpu], "MPS") == GpuRoom({"GPU-a": 900}, 0)
    assert GpuRoom.of([gpu], "time slices") == GpuRoom({"GPU-a": 900}, CONTEXT_MIB)


@pytest.mark.parametrize(
    ("gpu_memory", "present", "used_mib", "message"),
    [
        ("4Gi", [make_share(4)], 4096 + IDLE_MIB, None),
        ("4Gi", [make_share(4)], 8192 + IDLE_MIB, None),  # 4Gi of a stranger, 4Gi left
        ("4Gi", [make_share(4)], 9216 + IDLE_MIB, "3Gi left beside 1 jobs, the job needs 4Gi; 5Gi of GPU GPU-a"),
        ("12Gi", [], IDLE_MIB, None),
        ("12Gi", [], 1 + IDLE_MIB, "1Mi of GPU GPU-a are in use that no job of this node accounts for"),
        (None, [], 1228 + IDLE_MIB, None),
        (None, [], 1229 + IDLE_MIB, "GPU GPU-a are in use that no job of this node accounts for"),
    ],
)
def test_what_a_stranger_holds_of_a_gpu_is_not_lent(
    gpu_memory: str | None, present: list[JobProcess], used_mib: int, message: str | None
) -> None:
    spec = make_spec(gpus=1, cpus=1, memory="1Mi", gpuMemory=gpu_memory)
    room = GpuRoom({"GPU-a": 12 * 1024}, 0).measured({"GPU-a": used_mib}, present, ())
    refusal = refuse(spec, ["GPU-a"], NODE, present, room)
    assert (refusal is None) is (message is None), refusal
    assert refusal is None or message is None or message in refusal.message, refusal.message


def test_while_a_trainer_warms_up_nobody_says_whose_memory_it_is() -> None:
    room = GpuRoom({"GPU-a": 12 * 1024}, 0)
    assert room.measured({"GPU-a": 9999}, [], ["GPU-a"]).unaccounted_mib == {}
    assert room.measured({"GPU-a": 9999}, [make_share(None)], ()).unaccounted_mib == {}


@pytest.mark.parametrize(
    ("gibibytes", "used_mib", "before_mib", "late"),
    [
        (4, IDLE_MIB, 0, False),
        (4, IDLE_MIB + 100, 0, True),
        (4, IDLE_MIB + 100, 100, False),  # a stranger's since before it began
        (None, IDLE_MIB + 1228, 0, False),
        (None, IDLE_MIB + 1229, 0, True),
    ],
)
def test_memory_is_back_when_no_more_is_in_use_than_before(
    gibibytes: int | None, used_mib: int, before_mib: int, late: bool
) -> None:
    room = GpuRoom({"GPU-a": 12 * 1024}, 0).measured({"GPU-a": used_mib}, [], ())
    assert bool(room.not_back(make_share(gibibytes), {"GPU-a": before_mib})) is late


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 9)), max_size=12))
def test_what_is_admitted_never_exceeds_the_node(wishes: list[tuple[int, int]]) -> None:
    present: list[JobProcess] = []
    for cpus, gibibytes in wishes:
        if refuse(make_spec(cpus=cpus, memory=f"{gibibytes}Gi"), [], NODE, present) is None:
            present.append(make_process(cpus, gibibytes * 2**30))
    assert sum(job.cpus for job in present) <= NODE.cpus
    assert sum(job.memory_bytes for job in present) <= NODE.memory_bytes
    assert len(present) <= NODE.max_jobs
