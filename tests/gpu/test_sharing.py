"""Several jobs on one real GPU, by real trainers in a real runner: through MPS where it is, and by time slices."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from cyxwiz_agent.devices import read_devices
from cyxwiz_crds import TrainingJobSpec
from cyxwiz_protocol.job_folder import JobFolder, Tail, write_json
from cyxwiz_protocol.order import JobOrder
from cyxwiz_protocol.records import ProgressRecord, parse_record
from cyxwiz_runner.mps import CONTROL_PROGRAM
from cyxwiz_runner.process_tree import all_processes, marker_of
from cyxwiz_runner.spawn import DEFAULT_COMMAND
from tests.process.runner.conftest import Runner, wait_for

DEVICES = read_devices()
GIB = 2**30

pytestmark = pytest.mark.skipif(not DEVICES.gpus, reason=f"needs an NVIDIA GPU: {DEVICES.message}")


@pytest.fixture(scope="module", params=["MPS", "time slices"])
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """A runner that shares in that way."""
    if request.param == "MPS" and shutil.which(CONTROL_PROGRAM) is None:
        pytest.skip(f"{CONTROL_PROGRAM} is not on PATH")
    runner = Runner(tmp_path_factory.mktemp("s"))
    runner.start(*([] if request.param == "MPS" else ["--mps-command", "[]"]), trainer=list(DEFAULT_COMMAND))
    yield runner
    runner.wipe_out()


@pytest.fixture(autouse=True)
def no_jobs_left(node: Runner) -> Iterator[None]:
    """The next test finds no job of this one."""
    yield
    for job in node.snapshot().jobs:
        folder = JobFolder.of(node.state, job.assignment_id)
        node.stop(folder, 0)
        node.wait_for_state(folder, "Reaped")
        node.forget(folder)


def train(node: Runner, gibibytes: int = 4, seconds: float = 600, **spec: Any) -> JobFolder:
    """A job that trains on a part of the first GPU until it is stopped."""
    body: dict[str, Any] = {"model": {"name": "cnn"}, "dataset": {"uri": "builtin://digits"}, "epochs": 100_000, **spec}
    body["resources"] = {"gpus": 1, "gpuMemory": f"{gibibytes}Gi", "cpus": 1}
    gpu = DEVICES.gpus[0].uuid
    request = node.order("real", gpus=[gpu], gpu_memory_bytes=gibibytes * GIB, seconds=seconds)
    folder = node.folder(request)
    order = JobOrder(
        assignment_id=folder.assignment_id,
        namespace="default",
        name=folder.assignment_id,
        attempt=1,
        spec=TrainingJobSpec.model_validate(body),
        gpus=[gpu],
    )
    write_json(folder.order, order.wire())
    assert node.ask(**request) == {"ok": True}
    return folder


def step(folder: JobFolder) -> int:
    """The last step it has told of."""
    records = [parse_record(line) for line in Tail(folder.metrics).lines()]
    return max((record.step for record in records if isinstance(record, ProgressRecord)), default=0)


def wait_for_steps(node: Runner, folder: JobFolder, beyond: int = 0) -> int:
    def reached() -> int:
        job = node.job(folder)
        assert job is not None
        assert job.state in ("Starting", "Running"), folder.log.read_text()[-3000:]
        now = step(folder)
        return now if now > beyond else 0

    return wait_for(reached, f"{folder.assignment_id} goes on")


def test_two_jobs_train_on_one_gpu_and_their_start_says_how(node: Runner) -> None:
    first, second = train(node), train(node)
    for folder in (first, second):
        wait_for_steps(node, folder)
        job = node.job(folder)
        assert job is not None
        assert job.start is not None
        assert job.start.sharing == f"{node.snapshot().sharing}, 4Gi"
        print(job.start)
    assert node.stop(first, 60) == {"ok": True}
    ended = node.wait_for_state(first, "Reaped").exit
    assert ended is not None
    assert ended.exit_code == 20, first.log.read_text()[-3000:]
    wait_for_steps(node, second, step(second))


def test_a_frozen_job_leaves_its_neighbour_running_and_thaws(node: Runner) -> None:
    frozen, neighbour = train(node), train(node)
    for folder in (frozen, neighbour):
        wait_for_steps(node, folder)
    job = node.job(frozen)
    assert job is not None
    assert job.pid is not None
    os.kill(job.pid, signal.SIGSTOP)
    time.sleep(1)  # what it had queued on the device is done by then
    stood = step(frozen)
    wait_for_steps(node, neighbour, wait_for_steps(node, neighbour, step(neighbour)))
    assert step(frozen) == stood
    os.kill(job.pid, signal.SIGCONT)
    wait_for_steps(node, frozen, stood)


def test_a_killed_job_leaves_its_neighbour_running_and_room_for_the_next(node: Runner) -> None:
    killed, neighbour = train(node), train(node)
    for folder in (killed, neighbour):
        wait_for_steps(node, folder)
    job = node.job(killed)
    assert job is not None
    assert job.pid is not None
    os.kill(job.pid, signal.SIGKILL)
    ended = node.wait_for_state(killed, "Reaped").exit
    assert ended is not None
    assert ended.signal == signal.SIGKILL
    wait_for_steps(node, neighbour, step(neighbour))
    wait_for_steps(node, train(node))


def test_a_job_cannot_hold_more_than_its_gpu_memory(node: Runner) -> None:
    neighbour = train(node)
    wait_for_steps(node, neighbour)
    greedy = train(
        node,
        gibibytes=2,
        model={"name": "resnet18"},
        dataset={"uri": "mock://cifar10"},
        batchSize=16384,
    )
    ended = node.wait_for_state(greedy, "Reaped").exit
    assert ended is not None
    assert ended.exit_code == 10, greedy.log.read_text()[-3000:]
    last = json.loads(greedy.metrics.read_text().splitlines()[-1])
    print(last)
    assert last["failure"] == "OutOfGPUMemory"
    wait_for_steps(node, neighbour, step(neighbour))


def test_an_mps_server_that_dies_ends_its_jobs_and_the_next_one_trains(node: Runner) -> None:
    if node.snapshot().sharing != "MPS":
        pytest.skip("no server by time slices")
    folder = train(node)
    wait_for_steps(node, folder)
    for process in all_processes():
        if (marker_of(process.pid) or "").endswith("/mps"):
            os.kill(process.pid, signal.SIGKILL)
    ended = node.wait_for_state(folder, "Reaped").exit
    assert ended is not None
    print(ended)
    assert ended.cause in ("SharingLost", "Exited")  # CUDA may end it before the runner has looked
    wait_for_steps(node, train(node))
