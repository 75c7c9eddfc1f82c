"""Jobs of several ranks under a real runner with real trainers: one tree for every order, one end."""

import json
import os
import signal
from typing import TypeVar

import pytest

from cyxwiz_crds import TrainingJobSpec
from cyxwiz_protocol.job_folder import Tail
from cyxwiz_protocol.order import JobOrder
from cyxwiz_protocol.records import CheckpointedRecord, ExitCode, FailureRecord, ProgressRecord, Record, parse_record
from cyxwiz_runner.process_tree import all_processes, find_process, is_stopped
from cyxwiz_runner.spawn import DEFAULT_COMMAND

from .conftest import Runner

DEADLINE_S = 8
T = TypeVar("T", bound=Record)
SPEC = {
    "model": {"name": "mlp"},
    "dataset": {"uri": "builtin://digits"},
    "epochs": 100_000,
    "resources": {"gpus": 0, "cpus": 2},
}


def run_on_two(runner, **spec):
    """A job on two GPUs that nothing can compute on: its two ranks train on the CPU, as on simulated ones."""
    request = runner.order("real", gpus=["GPU-a", "GPU-b"])
    folder = runner.folder(request)
    order = JobOrder(
        assignment_id=folder.assignment_id,
        namespace="default",
        name="two",
        attempt=1,
        spec=TrainingJobSpec.model_validate(SPEC | spec),
        ranks=2,
    )
    folder.order.write_text(json.dumps(order.wire()))
    assert runner.ask(**request) == {"ok": True}
    return folder


def records(folder, kind: type[T]) -> list[T]:
    parsed = [parse_record(line) for line in Tail(folder.metrics).lines()]
    return [record for record in parsed if isinstance(record, kind)]


def steps(folder):
    return max((record.step for record in records(folder, ProgressRecord)), default=0)


def tree_of(job):
    """The main process and its ranks."""
    return [process for process in all_processes() if job.pid in (process.pid, process.parent)]


def test_a_job_on_two_gpus_is_spawned_for_two_ranks_that_see_both(runner):
    runner.start("--warm-gpu", "GPU-a", "--warm-gpu", "GPU-b")
    runner.wait_for_warm(2)
    folder = runner.run("work", gpus=["GPU-a", "GPU-b"])
    start = runner.wait_for_state(folder, "Running").start
    assert (start.mode, start.why) == ("Cold", "2 GPUs")
    facts = json.loads((folder.path / "facts.json").read_text())
    assert facts["prepare"]["ranks"] == 2
    assert facts["environment"]["CUDA_VISIBLE_DEVICES"] == "GPU-a,GPU-b"
    assert runner.snapshot().warm == 0


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A runner with real trainers."""
    runner = Runner(tmp_path_factory.mktemp("real") / "state")
    runner.start(trainer=list(DEFAULT_COMMAND))
    yield runner
    runner.wipe_out()


def test_two_ranks_freeze_thaw_and_save_within_the_grace_as_one_job(real, until):
    folder = run_on_two(real)
    until(lambda: real.renew(folder, DEADLINE_S) and steps(folder) > 0, "steps")
    job = real.wait_for_state(folder, "Running")
    tree = tree_of(job)
    assert len(tree) == 3

    real.wait_for_state(folder, "Frozen")
    until(lambda: all(is_stopped(process) for process in tree_of(job)), "all stand still")
    seen = steps(folder)
    real.renew(folder, 60)
    until(lambda: steps(folder) > seen, "more steps")
    assert {process.pid for process in tree_of(job)} == {process.pid for process in tree}

    real.stop(folder, 30)
    record = real.wait_for_state(folder, "Reaped").exit
    assert (record.exit_code, record.cause) == (ExitCode.STOPPED, "Stopped")
    assert records(folder, CheckpointedRecord)
    assert not [process for process in tree if find_process(process.pid)]


def test_a_rank_that_is_killed_is_the_jobs_end_by_that_signal(real, until):
    folder = run_on_two(real)
    until(lambda: real.renew(folder, 60) and steps(folder) > 0, "steps")
    job = real.wait_for_state(folder, "Running")
    _, _, last = sorted(process.pid for process in tree_of(job))
    os.kill(last, signal.SIGKILL)
    record = real.wait_for_state(folder, "Reaped").exit
    assert (record.signal, record.cause) == (signal.SIGKILL, "Exited")
    assert folder.log.read_text().splitlines()[-1] == "rank 1 of 2 was killed by SIGKILL: all were ended"
    assert not records(folder, FailureRecord)
