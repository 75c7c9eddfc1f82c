"""Jobs that share a GPU, with a control program that only pretends to be MPS."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from cyxwiz_runner.process_tree import find_process

FAKE_MPS = [sys.executable, "-S", str(Path(__file__).with_name("fake_mps.py"))]
GIB = 2**30


@pytest.fixture
def mps(runner):
    runner.start("--mps-command", json.dumps(FAKE_MPS))
    return runner


def server_pid(runner):
    return int((runner.state / "runner" / "mps" / "pipe" / "server.pid").read_text())


def lives(pid):
    process = find_process(pid)
    return process is not None and not process.is_dead


def share(runner, behaviour="work", gibibytes=4):
    return runner.run(behaviour, gpus=["GPU-a"], gpu_memory_bytes=gibibytes * GIB)


def environment_of(folder):
    return json.loads((folder.path / "facts.json").read_text())["environment"]


def test_jobs_with_gpu_memory_share_through_one_server_each_with_its_limit(mps):
    assert mps.snapshot().sharing == "MPS"
    first, second = share(mps), share(mps, gibibytes=2)
    for folder, words, limit in ((first, "MPS, 4Gi", "0=4096M"), (second, "MPS, 2Gi", "0=2048M")):
        job = mps.wait_for_state(folder, "Running")
        assert (job.start.sharing, job.start.mode) == (words, "Cold")
        environment = environment_of(folder)
        assert environment["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] == limit
        assert Path(environment["CUDA_MPS_PIPE_DIRECTORY"]).is_dir()
    assert lives(server_pid(mps))


def test_a_job_that_shares_through_mps_starts_in_a_trainer_that_was_imported_ahead(runner, until):
    runner.start("--mps-command", json.dumps(FAKE_MPS), "--warm-gpu", "GPU-a")
    runner.wait_for_warm(1)
    runner.wait_for_state(share(runner), "Running")
    until(lambda: runner.snapshot().imported == 1, "the next one has imported")
    folder = share(runner, gibibytes=2)
    job = runner.wait_for_state(folder, "Running")
    assert job.start.why == "how it shares its GPU is fixed when a trainer takes it; torch was imported ahead"
    assert environment_of(folder)["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] == "0=2048M"


def test_a_whole_gpu_job_knows_nothing_of_mps_and_starts_no_server(mps):
    folder = mps.run("work", gpus=["GPU-a"])
    assert mps.wait_for_state(folder, "Running").start.sharing is None
    assert not [name for name in environment_of(folder) if "MPS" in name]
    assert not (mps.state / "runner" / "mps").exists()


def test_the_server_ends_with_the_last_job_that_shares_and_begins_with_the_next(mps, until):
    first, second = share(mps), share(mps)
    mps.wait_for_state(first, "Running")
    mps.wait_for_state(second, "Running")
    pid = server_pid(mps)
    mps.stop(first, 0)
    mps.wait_for_state(first, "Reaped")
    assert lives(pid)
    mps.stop(second, 0)
    mps.wait_for_state(second, "Reaped")
    until(lambda: not lives(pid), "the server has gone")
    mps.wait_for_state(share(mps), "Running")


def test_a_server_that_dies_ends_its_jobs_with_a_cause_of_their_own_and_no_others(mps, until):
    shared = share(mps)
    whole = mps.run("work", gpus=["GPU-b"])
    mps.wait_for_state(shared, "Running")
    mps.wait_for_state(whole, "Running")
    pid = server_pid(mps)
    until(lambda: lives(pid), "the server")
    os.kill(pid, signal.SIGKILL)
    assert mps.wait_for_state(shared, "Reaped").exit.cause == "SharingLost"
    assert mps.job(whole).state == "Running"
    mps.wait_for_state(share(mps), "Running")


def test_without_a_server_that_starts_jobs_share_by_time_slices_on_warm_trainers(runner):
    runner.start("--mps-command", json.dumps([*FAKE_MPS, "--broken"]), "--warm-gpu", "GPU-a")
    runner.wait_for_warm(1)
    first = runner.wait_for_state(share(runner), "Running")
    assert (first.start.sharing, first.start.mode) == ("time slices, 4Gi", "Warm")
    second = runner.wait_for_state(share(runner), "Running")
    assert second.start.mode == "Cold"
    assert second.start.why.startswith("another job holds a part of its GPU")
    assert runner.snapshot().sharing == "time slices"


def test_a_killed_runners_server_is_ended_by_the_next(mps):
    mps.wait_for_state(share(mps), "Running")
    pid = server_pid(mps)
    mps.end(signal.SIGKILL)
    assert lives(pid)
    mps.start("--mps-command", "[]")
    assert not lives(pid)
    assert mps.snapshot().sharing == "time slices"
