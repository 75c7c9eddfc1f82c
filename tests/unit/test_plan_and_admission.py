"""The operator plans by its ledger, the agent admits by its own: on a GPU that is shared they must agree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyxwiz_agent.admission import Capacity, refuse
from cyxwiz_agent.gpu_room import GpuRoom, context_mib
from cyxwiz_operator.scheduling.filters import free_devices
from cyxwiz_operator.scheduling.room import Room
from cyxwiz_operator.views import JobView
from cyxwiz_protocol.runner_api import JobProcess
from tests.unit.operator.builders import gpu_uuid, make_bound_job, make_job, make_node, make_table

UUID = gpu_uuid("node-a", 0)
SIZES = st.one_of(st.none(), st.sampled_from(["1Gi", "4Gi", "7Gi", "8Gi", "16Gi"]))
CAPACITY = Capacity(gpus=frozenset({UUID}), cpus=64, memory_bytes=2**40, max_jobs=64)


def process_of(job: JobView) -> JobProcess:
    body = {"assignmentId": f"{job.uid}-1", "jobUid": job.uid, "attempt": 1, "key": job.key, "state": "Running"}
    process = JobProcess.model_validate(body | {"gpus": [UUID]})
    return process.model_copy(update={"gpu_memory_bytes": job.job.spec.resources.gpu_memory_bytes})


@pytest.mark.parametrize("sharing", ["MPS", "time slices"])
@given(st.lists(SIZES, max_size=4), SIZES)
def test_the_agent_admits_to_a_gpu_what_the_operator_would_bind_to_it(
    sharing: str, held: list[str | None], wanted: str | None
) -> None:
    node = make_node(gpus=1, gpu_memory_mib=16_384, gpu_context_mib=context_mib(sharing), cpus=64)
    running = [make_bound_job(f"job-{n}", gpus=1, gpu_memory=size, gpu_uuids=[UUID]) for n, size in enumerate(held)]
    job = make_job("new", gpus=1, gpu_memory=wanted)
    table = make_table(node, jobs=running)
    bound = bool(free_devices(job.demand, table)[0, 0])
    assert Room.of(table, 0).fits(job.demand) is bound
    room = GpuRoom.of(node.gpus, sharing)
    refusal = refuse(job.job.spec, [UUID], CAPACITY, [process_of(each) for each in running], room)
    assert (refusal is None) is bound, refusal
