"""A uid per job, on real processes: what jobs cannot do to each other, and that they still end as all others do."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cyxwiz_protocol.job_folder import JobFolder
from cyxwiz_runner.process_tree import all_processes, find_process, uid_of
from cyxwiz_runner.uids import why_not

from .conftest import FAKE_TRAINER, Runner

UIDS = range(731_000, 731_008)
FOR_ONE_JOB = UIDS[:2]
"""The runner's fetching process has the first."""


def usable_python():
    """An interpreter that any user may run; the one of a virtual environment may lie in somebody's home."""
    for python in (sys.executable, "/usr/bin/python3"):
        if Path(python).exists():
            try:
                subprocess.run([python, "-S", "-c", ""], user=UIDS[0], check=True, capture_output=True)
                return python
            except (OSError, subprocess.CalledProcessError):
                pass
    return None


@pytest.fixture
def separate():
    """A runner, not started, whose folder and whose trainer any user gets to."""
    top = Path(tempfile.mkdtemp(prefix="cyxwiz-uids-", dir="/tmp"))
    top.chmod(0o755)
    runner = SeparateRunner(top)
    yield runner
    runner.wipe_out()
    shutil.rmtree(top)


class SeparateRunner(Runner):
    def __init__(self, top):
        super().__init__(top / "state")
        python = usable_python()
        if reason := why_not(self.state):
            pytest.skip(f"uids cannot be separate: {reason}")
        if python is None:
            pytest.skip("no Python that another user may run")
        shutil.copy(FAKE_TRAINER[-1], top)
        self.trainer = [python, "-S", str(top / Path(FAKE_TRAINER[-1]).name)]

    def wipe_out(self):
        super().wipe_out()
        for process in all_processes():
            if uid_of(process.pid) in UIDS:  # bears no marker: the next runner would find its uid taken
                os.kill(process.pid, signal.SIGKILL)

    def begin(self, *arguments, uids=UIDS, warm=0):
        self.start("--uids", f"{uids[0]}-{uids[-1]}", *arguments, trainer=self.trainer, warm=warm)


def lives(pid):
    process = find_process(pid)
    return process is not None and not process.is_dead


def test_a_job_can_neither_read_nor_signal_its_neighbour_nor_change_its_own_order(separate):
    separate.begin()
    assert separate.snapshot().isolation == "each job has a uid of its own from 731000-731007"
    neighbour = separate.run("work")
    pid = separate.wait_for_state(neighbour, "Running").pid
    spy = separate.run("spy", neighbour=str(neighbour.path), pid=pid)
    assert separate.wait_for_state(spy, "Reaped").exit.exit_code == 0, spy.log.read_text()
    spied = json.loads((spy.path / "spied.json").read_text())
    shared = Path(spied.pop("shared"))
    assert spied.pop("groups") == "[]"
    assert set(spied.values()) == {"PermissionError"}, spied
    assert not shared.exists(), "what it left in shared memory is swept"
    assert separate.job(neighbour).state == "Running"


def test_a_jobs_processes_have_its_uid_no_capabilities_and_limits(separate):
    separate.begin(warm=1)
    separate.wait_for_warm(1)
    folder = separate.run("work")
    job = separate.wait_for_state(folder, "Running")
    assert job.start.mode == "Warm"
    assert uid_of(job.pid) in UIDS
    status = json.loads((folder.path / "facts.json").read_text())["status"]
    for line in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert f"{line}:\t{0:016x}" in status
    assert "NoNewPrivs:\t1" in status
    limits = Path(f"/proc/{job.pid}/limits").read_text()
    assert limits.split("Max core file size")[1].split()[:2] == ["0", "0"]
    assert limits.split("Max processes")[1].split()[:2] == ["4096", "4096"]
    assert int(limits.split("Max open files")[1].split()[1]) <= 65_536
    assert Path(f"/proc/{job.pid}/oom_score_adj").read_text().strip() == "900"


def test_a_deaf_job_under_its_uid_ends_with_the_daemon_that_wiped_its_environment(separate):
    separate.begin()
    folder = separate.run("deaf-without-environment")
    pid, daemon = separate.wait_for_state(folder, "Running").pid, separate.daemon_of(folder)
    other = separate.run("end")
    separate.wait_for_state(other, "Reaped")
    assert lives(daemon), "another job's end is none of its business"
    separate.stop(folder, 0.2)
    separate.wait_for_state(folder, "Reaped")
    assert not lives(pid)
    assert not lives(daemon)


def test_a_frozen_job_under_its_uid_stands_still_and_thaws(separate, until):
    separate.begin()
    folder = separate.run("deaf-without-environment", seconds=1)
    daemon = separate.daemon_of(folder)
    separate.wait_for_state(folder, "Frozen")
    until(lambda: (process := find_process(daemon)) and process.state == "T", "the daemon stands still")
    separate.renew(folder, 60)
    separate.wait_for_state(folder, "Running")
    until(lambda: (process := find_process(daemon)) and process.state != "T", "the daemon moves")


def test_an_ended_jobs_folder_is_the_runners_again_and_its_uid_another_jobs(separate):
    separate.begin(uids=FOR_ONE_JOB)
    for _ in range(3):
        folder = separate.run("end")
        assert separate.wait_for_state(folder, "Reaped").exit.exit_code == 0, folder.log.read_text()
        for path in (folder.path, *folder.path.rglob("*")):
            assert (path.stat().st_uid, path.stat().st_gid) == (os.geteuid(), os.getegid())
        assert folder.path.stat().st_mode & 0o777 == 0o700


def test_without_a_free_uid_a_job_does_not_start_and_says_why(separate):
    separate.begin(uids=FOR_ONE_JOB)
    separate.wait_for_state(separate.run("work"), "Running")
    folder = separate.run("work")
    assert separate.wait_for_state(folder, "Reaped").exit.cause == "StartFailed"
    assert "no uid of 731000-731001 is free" in folder.log.read_text()


def test_the_next_attempt_reads_the_checkpoint_of_the_last_until_it_ends(separate):
    separate.begin()
    job = separate.new_job()
    first = separate.run("end", job=job, attempt=1)
    separate.wait_for_state(first, "Reaped")
    checkpoint = first.checkpoints / "step-1"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state.json").write_text("{}")
    spec = {"model": {"name": "cnn"}, "dataset": {"uri": "builtin://digits"}}
    order = {"assignmentId": f"{job}-2", "namespace": "a", "name": job, "spec": spec, "restoreFrom": str(checkpoint)}
    second = separate.run("read", job=job, attempt=2, **order)
    separate.wait_for_state(second, "Reaped")
    assert (second.path / "read").read_text() == "{}", second.log.read_text()
    assert first.path.stat().st_mode & 0o777 == 0o700


def test_a_killed_runner_takes_trainers_with_uids_along_and_the_next_takes_their_folders_back(separate, until):
    separate.begin()
    folder = separate.run("deaf-without-environment")
    pid, daemon = separate.wait_for_state(folder, "Running").pid, separate.daemon_of(folder)
    separate.end(signal.SIGKILL)
    until(lambda: not lives(pid), "its main process has gone with the runner")
    assert lives(daemon)
    separate.begin()
    assert not lives(daemon)
    assert separate.job(folder).exit.cause == "RunnerRestarted"
    assert {path.stat().st_uid for path in (folder.path, *folder.path.iterdir())} == {os.geteuid()}


def test_a_link_in_place_of_the_log_or_the_end_is_not_followed(separate):
    separate.begin()
    folder = separate.run("trap")
    victim = JobFolder(separate.state).path / "victim"
    victim.write_text("untouched")
    separate.stop(folder, 0)
    separate.wait_for_state(folder, "Reaped")
    assert victim.read_text() == "untouched"
    assert json.loads(folder.exit.read_text())["cause"] == "Stopped"


def test_without_uids_the_snapshot_says_that_jobs_are_not_kept_apart(serving):
    assert serving.snapshot().isolation == "all jobs share the runner's uid: no uids were given to the runner"
