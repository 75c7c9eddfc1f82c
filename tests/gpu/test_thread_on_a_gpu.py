"""The thread on a real GPU: NVML's inventory, a warm start on the device, ResNet-18, freeze and thaw, cancel."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cyxwiz_agent.devices import Devices, read_devices
from cyxwiz_agent.devices.guard import of_runner
from cyxwiz_devcluster import start
from cyxwiz_platform import Platform
from tests.thread import (
    apply_and_wait,
    digits,
    finished,
    phase,
    snapshot_of,
    status_of,
    stepping,
    trainers_of,
    wait_frozen,
    wait_gone,
)

EXAMPLES = Path(__file__).parents[2] / "examples"
DEVICES: Devices = read_devices()

pytestmark = pytest.mark.skipif(not DEVICES.gpus, reason=f"needs an NVIDIA GPU: {DEVICES.message}")


@pytest.fixture(scope="module")
def gpu_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Operator and one machine with this machine's GPUs, a trainer warm on the first of them."""
    with (
        start(tmp_path_factory.mktemp("c")) as cluster,
        Platform(cluster, tmp_path_factory.mktemp("t")) as platform,
    ):
        platform.install()
        platform.add_machine("gpu-node", cpus=8, memory="32Gi", warm=0, gpus=("all",))
        platform.start_operator()
        platform.wait_machines()
        platform.wait_for("computenode", "gpu-node", _knows_models, what="trainers ready", within_s=120)
        yield platform


@pytest.fixture(autouse=True)
def no_jobs_left(gpu_node: Platform) -> Iterator[None]:
    """The next test finds no job of this one."""
    yield
    gpu_node.cluster.run_kubectl("delete", "trainingjobs", "--all", "-n", "default")


def _knows_models(node: dict[str, Any]) -> bool:
    return bool(node.get("status", {}).get("inventory", {}).get("models"))


def example() -> dict[str, Any]:
    return yaml.safe_load((EXAMPLES / "resnet18-cifar10.yaml").read_text())


def endless_on_gpu(name: str) -> dict[str, Any]:
    return digits(name, epochs=100_000, gpus=1)


def test_the_computenode_shows_the_gpu_as_its_driver_describes_it(gpu_node: Platform) -> None:
    node = gpu_node.get("computenode", "gpu-node")
    print(yaml.safe_dump(node["status"]["inventory"]))
    gpu = node["status"]["inventory"]["gpus"][0]
    assert gpu["uuid"].startswith("GPU-")
    assert gpu["memoryTotalMiB"] > 1024
    assert gpu["computeCapability"]
    assert node["status"]["inventory"]["driverVersion"]


def test_the_example_job_trains_resnet18_on_the_gpu(gpu_node: Platform) -> None:
    gpu_node.apply(example())
    job = gpu_node.wait_for("trainingjob", "resnet18-cifar10", finished, what="a final phase", within_s=400)
    status = status_of(job)
    print(gpu_node.cluster.run_kubectl("get", "tj", "-o", "wide"))
    print(yaml.safe_dump(status))
    assert status["phase"] == "Succeeded", status.get("summary")
    assert status["assignment"]["gpus"] == [DEVICES.gpus[0].uuid]
    assert "bfloat16" in status["execution"]["device"]
    assert status["execution"]["data"]["synthetic"] is True
    assert float(status["execution"]["progress"]["validationAccuracy"]) > 0.5
    assert status["execution"]["progress"]["gpuMemoryPeak"]


def test_a_gpu_job_starts_on_the_warm_trainer(gpu_node: Platform) -> None:
    gpu_node.wait_for("computenode", "gpu-node", lambda _: _warm(gpu_node), what="a warm trainer", within_s=60)
    job = apply_and_wait(gpu_node, digits("warm", gpus=1), finished, "a final phase")
    assert status_of(job)["phase"] == "Succeeded", status_of(job).get("summary")
    assert status_of(job)["execution"]["start"].startswith("Warm")


def _warm(platform: Platform) -> bool:
    """A trainer has become ready and has not been taken: as many as there are jobs and one."""
    log = platform.machines["gpu-node"].runner.log.read_text()
    return log.count("trainer ready") > log.count("start=Warm")


def test_a_second_job_waits_for_the_gpu(gpu_node: Platform) -> None:
    apply_and_wait(gpu_node, endless_on_gpu("holds"), stepping, "training")
    waiting = apply_and_wait(gpu_node, digits("waits", gpus=1), phase("Queued"), "Queued")
    assert status_of(waiting)["reason"] == "NoNodeFree"


def test_training_on_the_gpu_freezes_with_its_agent_and_goes_on(gpu_node: Platform) -> None:
    before = apply_and_wait(gpu_node, endless_on_gpu("thaws"), stepping, "training")
    assignment = status_of(before)["assignment"]["id"]
    agent = gpu_node.machines["gpu-node"].agent
    agent.signal(signal.SIGSTOP)
    try:
        wait_frozen(assignment)
    finally:
        agent.signal(signal.SIGCONT)
    seen = status_of(gpu_node.get("trainingjob", "thaws"))["execution"]["progress"]["step"]
    gpu_node.wait_for(
        "trainingjob", "thaws", lambda j: status_of(j)["execution"]["progress"]["step"] > seen + 500, what="more steps"
    )


def test_a_cancelled_gpu_job_leaves_the_gpu(gpu_node: Platform) -> None:
    running = apply_and_wait(gpu_node, endless_on_gpu("cancelled"), stepping, "training")
    assignment = status_of(running)["assignment"]["id"]
    assert trainers_of(assignment)
    gpu_node.cluster.run_kubectl("patch", "tj", "cancelled", "--type=merge", "-p", '{"spec":{"cancel":true}}')
    job = gpu_node.wait_for("trainingjob", "cancelled", finished, what="a final phase")
    assert status_of(job)["phase"] == "Cancelled"
    assert "still in use" not in status_of(job)["execution"]["message"]  # its memory came back in time
    wait_gone(assignment)


def test_a_process_of_nobodys_on_the_gpu_is_one_more_than_the_guard_allows(gpu_node: Platform) -> None:
    """What mode dedicated relies on."""
    uuid = DEVICES.gpus[0].uuid
    state = gpu_node.machines["gpu-node"].state

    def counted() -> int:
        [reading] = [device.reading for device in read_devices().known if device.reading.uuid == uuid]
        if reading.processes is None:
            pytest.skip("this driver does not tell the processes on a GPU")
        return reading.processes

    gpu_node.wait_for("computenode", "gpu-node", lambda _: _warm(gpu_node), what="a warm trainer", within_s=60)
    allowed = of_runner(uuid, snapshot_of(state))
    assert (counted(), allowed) == (1, 1)
    stranger = [sys.executable, "-c", "import torch; torch.zeros(1, device='cuda'); print(flush=True); input()"]
    with subprocess.Popen(stranger, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            assert counted() == 2
        finally:
            process.kill()
    deadline = time.monotonic() + 10
    while counted() != 1:
        assert time.monotonic() < deadline, "it is gone and still counted"
        time.sleep(0.1)
