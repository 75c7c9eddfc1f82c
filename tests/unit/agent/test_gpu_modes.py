"""Whose the node's GPUs are: the kubelet's answer, foreign use, and the GPUs of a job's reservation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from cyxwiz_agent.attempt import ReportEnd, Start, Stop, Wait, decide
from cyxwiz_agent.devices import Device, Devices, Guard, in_use
from cyxwiz_agent.devices.readings import GpuReading
from cyxwiz_agent.pod_resources import LIST, Holding, PodResources, parse_list
from cyxwiz_agent.reservation import gpus_given, taken_by, with_gpus
from cyxwiz_agent.settings import GpuMode
from cyxwiz_crds import TrainingJob
from cyxwiz_platform.simulated_gpus.device_plugin import text
from cyxwiz_protocol.runner_api import JobProcess, Snapshot

from .test_attempt import BASE, RUNNING, make_job

RESOURCE = "nvidia.com/gpu"


def answer(*holdings: Holding) -> bytes:
    """A ListPodResourcesResponse, with a number in it that nobody reads."""
    message = b""
    for holding in holdings:
        devices = text(1, holding.resource) + b"".join(text(2, device) for device in holding.devices)
        container = text(1, "main") + text(2, devices) + b"\x18\x05"
        message += text(1, text(1, holding.pod) + text(2, holding.namespace) + text(3, container))
    return message


def holding(pod: str, *devices: str, namespace: str = "default", resource: str = RESOURCE) -> Holding:
    return Holding(namespace, pod, resource, devices)


def test_the_kubelets_answer_is_read() -> None:
    held = (holding("a", "GPU-1", "GPU-2"), holding("b", "GPU-3", namespace="team"))
    assert parse_list(answer(*held)) == held
    assert parse_list(b"") == ()
    assert parse_list(text(1, text(1, "without-devices") + text(2, "default"))) == ()


@pytest.mark.parametrize("message", [b"\x0a", b"\x0a\x05ab", b"\x0b", b"\xff" * 12])
def test_what_is_no_answer_is_an_error_and_no_crash(message: bytes) -> None:
    with pytest.raises(ValueError, match="the kubelet's answer"):
        parse_list(message)


@asynccontextmanager
async def kubelet(socket: Path, say: list[bytes]) -> AsyncIterator[None]:
    """A server that answers List with what `say` ends with."""

    class Lister(grpc.GenericRpcHandler):
        def service(self, handler_call_details: Any) -> Any:
            assert handler_call_details.method == LIST
            return grpc.unary_unary_rpc_method_handler(self._list)

        async def _list(self, request: bytes, context: Any) -> bytes:
            return say[-1]

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Lister(),))
    server.add_insecure_port(f"unix://{socket}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)


async def test_what_the_kubelet_said_last_stands_while_it_is_silent(tmp_path: Path) -> None:
    changes = asyncio.Event()
    pods = PodResources(tmp_path / "kubelet.sock", changes.set)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        asking = group.create_task(pods.run())
        async with kubelet(tmp_path / "kubelet.sock", [answer(holding("a", "GPU-1"))]):
            while pods.held_by("default", "a") is None:
                changes.clear()
                await changes.wait()
        while pods.problem is None:
            changes.clear()
            await changes.wait()
        assert pods.held_by("default", "a") == ("GPU-1",)
        asking.cancel()


def devices(*uuids: str, processes: int | None = None) -> Devices:
    readings = (GpuReading(uuid, "NVIDIA H200", 143_771, processes=processes) for uuid in uuids)
    return Devices(tuple(Device(reading) for reading in readings))


def runner(*jobs: str, warm: list[str] | None = None) -> Snapshot:
    """A runner with one job on each of these GPUs."""
    process = {"assignmentId": "a", "jobUid": "u", "attempt": 1, "key": "default/j", "state": "Running"}
    found = [JobProcess.model_validate(process | {"gpus": [uuid]}) for uuid in jobs]
    return Snapshot(instance="i", jobs=found, warm_gpus=warm)


def test_a_gpu_that_a_pod_holds_is_for_no_job_and_says_whose_it_is() -> None:
    both = devices("GPU-1", "GPU-2")
    foreign = Guard(RESOURCE).foreign(both, [holding("a", "GPU-1"), holding("b", "nic-0", resource="example.com/nic")])
    seen = in_use(both, foreign)
    assert seen.unusable == {"GPU-1": "InUse (pod default/a holds it through Kubernetes)"}
    assert [gpu.health for gpu in seen.gpus] == ["InUse", "Healthy"]


def test_a_gpu_held_by_a_replica_or_by_an_index_is_held_too() -> None:
    both = devices("GPU-1", "GPU-2")
    assert list(Guard(RESOURCE).foreign(both, [holding("a", "GPU-2::3")])) == ["GPU-2"]
    assert list(Guard(RESOURCE).foreign(both, [holding("a", "0")])) == ["GPU-1", "GPU-2"]


def looked(count: int | None, snapshot: Snapshot | None, looks: int = 2) -> dict[str, str]:
    seen, guard = devices("GPU-1", processes=count), Guard(RESOURCE)
    for _ in range(looks):
        guard = guard.after(seen, snapshot)
    return guard.foreign(seen, [])


def test_processes_beside_the_runners_are_foreign_when_two_looks_show_them() -> None:
    assert list(looked(1, runner())) == ["GPU-1"]
    assert looked(1, runner(), looks=1) == {}
    assert list(looked(2, runner(warm=["GPU-1"]))) == ["GPU-1"]
    assert list(looked(1, runner("GPU-2"))) == ["GPU-1"]


@pytest.mark.parametrize(
    ("count", "snapshot"),
    [
        pytest.param(0, runner(), id="nobody is there"),
        pytest.param(5, runner("GPU-1"), id="its job and what that has begun"),
        pytest.param(1, runner(warm=["GPU-1"]), id="its warm trainer"),
        pytest.param(None, runner(), id="a driver that does not say"),
        pytest.param(5, None, id="a runner that does not answer"),
    ],
)
def test_nobody_is_accused_of_what_may_be_the_runners(count: int | None, snapshot: Snapshot | None) -> None:
    assert looked(count, snapshot) == {}


class Pods(PodResources):
    """A kubelet that has answered."""

    def __init__(self, *holdings: Holding) -> None:
        super().__init__(Path("nowhere"), lambda: None)
        self.holdings = holdings


def reserved(gpus: int = 1) -> TrainingJob:
    return make_job(gpus=[f"GPU-{n}" for n in range(gpus)], reservation="cyxwiz-u1-1")


def test_a_job_has_the_gpus_that_its_pod_was_given_whatever_the_operator_counted_on() -> None:
    given = gpus_given(reserved(), GpuMode.RESERVE, Pods(holding("cyxwiz-u1-1", "GPU-7")), {"GPU-0", "GPU-7"})
    assert (given.gpus, given.refusal) == (("GPU-7",), None)
    placed = with_gpus(reserved(), given.gpus or ())
    assert placed.status.assignment is not None
    assert placed.status.assignment.gpus == ["GPU-7"]


def test_a_job_waits_while_its_pod_has_none() -> None:
    assert gpus_given(reserved(), GpuMode.RESERVE, Pods(), {"GPU-0"}).gpus is None
    assert (
        gpus_given(reserved(), GpuMode.RESERVE, Pods(holding("cyxwiz-u1-1", "GPU-0", namespace="x")), ()).gpus is None
    )


@pytest.mark.parametrize(
    ("job", "mode", "pods", "said"),
    [
        (make_job(gpus=["GPU-0"]), GpuMode.RESERVE, Pods(), "bound without a reservation"),
        (reserved(), GpuMode.DEDICATED, Pods(holding("cyxwiz-u1-1", "GPU-0")), "not told to look"),
        (reserved(), GpuMode.UNGUARDED, None, "not told to look"),
        (reserved(), GpuMode.RESERVE, Pods(holding("cyxwiz-u1-1", "0")), "deviceIDStrategy uuid"),
        (reserved(), GpuMode.RESERVE, Pods(holding("cyxwiz-u1-1", "GPU-0::1")), "without sharing"),
        (reserved(2), GpuMode.RESERVE, Pods(holding("cyxwiz-u1-1", "GPU-0")), "1 GPUs in place of 2"),
    ],
)
def test_what_is_no_whole_gpu_of_its_own_is_refused(
    job: TrainingJob, mode: GpuMode, pods: Pods | None, said: str
) -> None:
    refusal = gpus_given(job, mode, pods, {"GPU-0", "GPU-1"}).refusal
    assert refusal is not None
    assert said in refusal.message


def test_a_job_without_gpus_needs_no_reservation() -> None:
    assert gpus_given(make_job(), GpuMode.RESERVE, Pods(), ()).gpus == ()


def test_a_gpu_is_lost_once_another_pod_has_it_and_not_before() -> None:
    job = reserved()
    assert taken_by(job, ["GPU-0"], Pods(holding("cyxwiz-u1-1", "GPU-0"))) is None
    assert taken_by(job, ["GPU-0"], Pods()) is None  # a kubelet that has just started knows no pods yet
    assert "pod default/b" in (taken_by(job, ["GPU-0"], Pods(holding("b", "GPU-0"))) or "")


def test_nothing_starts_before_its_gpus_are_given_and_an_order_to_leave_is_obeyed_all_the_same() -> None:
    waiting = replace(BASE, waits_for_gpus=True)
    assert decide(waiting) == Wait()
    assert decide(replace(waiting, waits_for_gpus=False)) == Start()
    assert isinstance(decide(replace(waiting, job=make_job(cancel=True))), ReportEnd)


def test_a_job_whose_gpu_was_given_away_is_killed_at_once() -> None:
    lost = replace(RUNNING, lost_gpus=True)
    assert decide(lost) == Stop(0.0)
    assert decide(replace(lost, stopping=True)) == Wait()
