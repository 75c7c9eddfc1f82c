"""A machine with eight GPUs, simulated below NVML: registered, given to jobs, lost and found."""

from __future__ import annotations

import os
import signal
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from cyxwiz_platform import Platform, SimulatedGpus, reachable_address
from tests.thread import (
    TRAINS_WITHIN_S,
    apply_and_wait,
    condition,
    digits,
    endless,
    finished,
    phase,
    status_of,
    stepping,
    trainers_of,
    wait_gone,
)

NODE = "eight-gpus"
NVML_GPU_IS_LOST = 15
LOOKED_AT_WITHIN_S = 45.0


@pytest.fixture(scope="module")
def gpus(thread: Platform) -> Iterator[SimulatedGpus]:
    """The GPUs of one machine more, which has registered."""
    machine = thread.add_machine(NODE, cpus=2, memory="4Gi", warm=0, simulated_gpus=8)
    thread.wait_machines()
    thread.wait_for("computenode", NODE, phase("Online"), what="Online")
    assert machine.simulated is not None
    yield machine.simulated
    thread.remove_machine(NODE)


def read(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return answer.read().decode()


def health_of(node: dict[str, Any], uuid: str) -> str:
    gpus = status_of(node).get("inventory", {}).get("gpus", [])
    return next((gpu["health"] for gpu in gpus if gpu["uuid"] == uuid), "")


def wait_health(thread: Platform, uuid: str, health: str) -> None:
    thread.wait_for(
        "computenode", NODE, lambda node: health_of(node, uuid) == health, what=health, within_s=LOOKED_AT_WITHIN_S
    )


def test_a_machine_shows_its_eight_gpus_and_that_they_are_simulated(thread: Platform, gpus: SimulatedGpus) -> None:
    assert "8 x Simulated H200" in thread.cluster.run_kubectl("get", "cn", NODE)
    inventory = status_of(thread.get("computenode", NODE))["inventory"]
    assert inventory["simulated"] is True
    assert [gpu["uuid"] for gpu in inventory["gpus"]] == gpus.uuids
    assert {gpu["health"] for gpu in inventory["gpus"]} == {"Healthy"}


def test_a_job_is_given_two_gpus_and_trains_on_the_cpu_saying_so(thread: Platform, gpus: SimulatedGpus) -> None:
    job = apply_and_wait(thread, digits("on-two", gpus=2, cpus=2, epochs=1), finished, "a final phase")
    status = status_of(job)
    assert status["phase"] == "Succeeded", status.get("summary")
    assert len(status["assignment"]["gpus"]) == 2
    assert set(status["assignment"]["gpus"]) < set(gpus.uuids)
    assert status["execution"]["device"] == "CPU, 2 ranks of 1 thread, float32, in place of 2 simulated GPUs"
    assert status["execution"]["start"].startswith("Cold")
    assert status["execution"]["start"].endswith(": 2 GPUs")
    assert status["execution"]["energy"] == "0.00 Wh", "the counters of these GPUs stand still"
    assert [gpu.partition(" GPU-")[0] for gpu in status["execution"]["receipt"]["gpus"]] == ["Simulated H200"] * 2


def test_a_jobs_log_can_be_read_and_its_series_end_with_it(thread: Platform, gpus: SimulatedGpus) -> None:
    job = apply_and_wait(thread, endless("told", gpus=1), stepping, "training")
    machine = thread.machines[status_of(job)["assignment"]["node"]]
    path = status_of(job)["execution"]["logsPath"].partition("/proxy")[2]
    series = 'cyxwiz_job_step{name="told",namespace="default"}'
    assert series in read(machine.agent_port, "/metrics")
    assert 'cyxwiz_gpu_health{name="Simulated H200",state="Healthy"' in read(machine.agent_port, "/metrics")
    with urllib.request.urlopen(f"http://{reachable_address()}:{machine.logs_port}{path}?follow=1", timeout=60) as log:
        thread.cluster.run_kubectl("delete", "trainingjob", "told")
        assert (
            log.read() == machine.state.joinpath("jobs", status_of(job)["assignment"]["id"], "trainer.log").read_bytes()
        )
    wait_gone(status_of(job)["assignment"]["id"])
    deadline = time.monotonic() + 10
    while series in read(machine.agent_port, "/metrics"):
        assert time.monotonic() < deadline, "its series are still there"
        time.sleep(0.1)


def test_an_end_is_told_when_its_gpu_memory_is_back_or_was_waited_for(thread: Platform, gpus: SimulatedGpus) -> None:
    job = apply_and_wait(thread, endless("sticky", gpus=1), stepping, "training")
    [uuid] = status_of(job)["assignment"]["gpus"]
    held = gpus.uuids.index(uuid)
    gpus.change(held, free_mib=100_000)
    try:
        thread.cluster.run_kubectl("patch", "tj", "sticky", "--type=merge", "-p", '{"spec":{"cancel":true}}')
        job = thread.wait_for("trainingjob", "sticky", finished, what="a final phase")
    finally:
        gpus.change(held, free_mib=143_156)
    assert status_of(job)["phase"] == "Cancelled"
    message = status_of(job)["execution"]["message"]
    assert f"of GPU {uuid} were still in use 10 s after its processes had gone" in message


def test_nothing_is_written_while_only_temperatures_move(thread: Platform, gpus: SimulatedGpus) -> None:
    before = thread.get("computenode", NODE)["status"]["inventory"]
    gpus.change(0, temperature=33, power_mw=90_000)
    gpus.tell_xid(0, 13)  # has the agent look at once; a program's error, told once
    node = thread.wait_for(
        "computenode", NODE, lambda n: n["status"]["inventory"]["gpus"][0].get("lastXid"), what="the error"
    )
    after = node["status"]["inventory"]
    assert after["gpus"][0]["health"] == "Healthy"
    assert after["gpus"][1:] == before["gpus"][1:]


def test_a_lost_gpu_is_shown_and_not_used_until_it_is_back(thread: Platform, gpus: SimulatedGpus) -> None:
    lost, uuid = 3, gpus.uuids[3]
    gpus.change(lost, error=NVML_GPU_IS_LOST)
    gpus.tell_xid(0, 48)
    try:
        wait_health(thread, uuid, "Lost")
        wait_health(thread, gpus.uuids[0], "Unhealthy")
        job = apply_and_wait(thread, digits("on-all", gpus=8, epochs=1, batchSize=32), phase("Queued"), "Queued")
        assert condition(job, "Scheduled")["reason"] == "NoNodeFree"
        job = apply_and_wait(thread, digits("on-six", gpus=6, epochs=1, batchSize=48), finished, "a final phase")
        assert status_of(job)["phase"] == "Succeeded", status_of(job).get("summary")
        assert not {uuid, gpus.uuids[0]} & set(status_of(job)["assignment"]["gpus"])
    finally:
        gpus.change(lost, error=None)
    wait_health(thread, uuid, "Healthy")


def test_a_job_killed_by_its_gpu_is_retried_on_others_without_being_counted(
    thread: Platform, gpus: SimulatedGpus
) -> None:
    running = apply_and_wait(thread, endless("blameless", gpus=2), stepping, "training")
    assignment = status_of(running)["assignment"]
    gpus.tell_xid(gpus.uuids.index(assignment["gpus"][0]), 79)
    wait_health(thread, assignment["gpus"][0], "Unhealthy")
    for pid in trainers_of(assignment["id"]):
        os.kill(pid, signal.SIGABRT)
    job = thread.wait_for(
        "trainingjob",
        "blameless",
        lambda j: status_of(j).get("attempt", 0) > 1,
        what="a second attempt",
        within_s=TRAINS_WITHIN_S,
    )
    assert [record["outcome"] for record in status_of(job)["history"]] == ["GPUFault"]
    assert status_of(job).get("failures", 0) == 0
    assert assignment["gpus"][0] not in status_of(job)["assignment"]["gpus"]
