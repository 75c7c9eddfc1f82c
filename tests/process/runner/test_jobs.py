"""Jobs in a real runner: how they start, and every way they end."""

import json
import os
import signal
from pathlib import Path

import pytest

from cyxwiz_protocol.records import ExitRecord
from cyxwiz_runner.process_tree import find_process


def lives(pid):
    process = find_process(pid)
    return process is not None and not process.is_dead


def state_of(pid):
    process = find_process(pid)
    return process and process.state


def cpu_ticks(pid):
    """CPU time the process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_a_job_that_ends_well_is_reaped_with_exit_code_0(serving):
    folder = serving.run("end")
    job = serving.wait_for_state(folder, "Reaped")
    assert (job.exit.cause, job.exit.exit_code, job.exit.signal) == ("Exited", 0, None)
    assert ExitRecord.model_validate_json(folder.exit.read_bytes()) == job.exit
    assert job.exit.started_at <= job.exit.ended_at


def test_a_crash_tells_its_exit_code_and_keeps_what_was_printed_early(serving):
    folder = serving.run("crash")
    assert serving.wait_for_state(folder, "Reaped").exit.exit_code == 7
    assert "printed before the start" in folder.log.read_text()


def test_a_killed_trainer_tells_its_signal(serving):
    folder = serving.run("work")
    os.kill(serving.wait_for_state(folder, "Running").pid, signal.SIGKILL)
    record = serving.wait_for_state(folder, "Reaped").exit
    assert (record.cause, record.exit_code, record.signal) == ("Exited", None, signal.SIGKILL)


def test_a_job_without_a_warm_trainer_starts_cold_and_says_why(serving):
    start = serving.wait_for_state(serving.run("work"), "Running").start
    assert (start.mode, start.why) == ("Cold", "no warm trainers are kept for the CPU")
    assert start.seconds > 0


def test_a_warm_trainer_is_used_once_and_replaced(runner):
    runner.start(warm=1)
    runner.wait_for_warm(1)
    first = runner.wait_for_state(runner.run("work"), "Running")
    assert runner.wait_for_warm(1).torch_version == "0.0"
    second = runner.wait_for_state(runner.run("work"), "Running")
    assert first.start.mode == second.start.mode == "Warm"
    assert first.pid != second.pid


def test_a_gpus_warm_trainer_sees_that_gpu_and_follows_only_when_the_job_on_it_is_gone(runner):
    runner.start("--warm-gpu", "GPU-a")
    runner.wait_for_warm(1)
    folder = runner.run("work", gpus=["GPU-a"])
    assert runner.wait_for_state(folder, "Running").start.mode == "Warm"
    facts = json.loads((folder.path / "facts.json").read_text())
    assert facts["environment"]["CUDA_VISIBLE_DEVICES"] == "GPU-a"
    runner.wait_for_warm(0)
    both = runner.run("work", gpus=["GPU-a", "GPU-b"])
    other = runner.wait_for_state(both, "Running")
    assert other.start.mode == "Cold"
    assert other.start.why.startswith("2 GPUs")
    for job in runner.snapshot().jobs:
        runner.ask(verb="stop", assignmentId=job.assignment_id, graceSeconds=10)
    runner.wait_for_warm(1)


def test_the_next_trainer_of_a_gpu_waits_imported_and_takes_the_device_when_the_job_on_it_is_gone(runner, until):
    runner.start("--warm-gpu", "GPU-a")
    runner.wait_for_warm(1)
    folder = runner.run("work", gpus=["GPU-a"])
    job = runner.wait_for_state(folder, "Running")
    until(lambda: runner.snapshot().imported == 1, "the next one has imported")
    assert runner.snapshot().warm == 0
    [waiting] = set(runner.leftovers()) - {job.pid}
    runner.stop(folder, 10)
    assert runner.wait_for_warm(1).imported == 0
    assert runner.leftovers() == [waiting]


def test_what_a_job_trained_is_told_to_the_trainers_after_it_and_after_a_restart(runner, until):
    spec = {"model": {"name": "cnn"}, "dataset": {"uri": "builtin://digits"}, "resources": {"gpus": 1}}
    shape = {"spec": spec, "inputShape": [1, 8, 8], "inputType": "uint8", "outputs": 10}
    runner.start("--warm-gpu", "GPU-a", warm=1)
    runner.wait_for_warm(2)
    runner.wait_for_state(runner.run("end", gpus=["GPU-a"], shape=shape), "Reaped")
    for _ in range(2):
        runner.wait_for_warm(2)
        told = {
            gpus: json.loads((runner.run_until_told(gpus).path / "facts.json").read_text())["prepare"]
            for gpus in ((), ("GPU-a",))
        }
        assert told[()] == {"rehearse": True, "shapes": [], "environment": {}, "ranks": 1}, "it was no CPU job"
        assert [told_shape["inputShape"] for told_shape in told[("GPU-a",)]["shapes"]] == [[1, 8, 8]]
        runner.end()
        runner.start("--warm-gpu", "GPU-a", warm=1)


def test_a_job_that_ends_as_soon_as_it_begins_still_tells_how_it_started(runner):
    runner.start(warm=1)
    for _ in range(5):
        runner.wait_for_warm(1)
        record = runner.wait_for_state(runner.run("end"), "Reaped").exit
        assert record.start is not None
        assert record.start.mode == "Warm"
        assert record.started_at is not None


def test_an_idle_trainer_that_dies_is_replaced(runner, until):
    runner.start(warm=1)
    runner.wait_for_warm(1)
    (pid,) = runner.leftovers()
    os.kill(pid, signal.SIGKILL)
    until(lambda: not lives(pid), "it is gone")
    runner.wait_for_warm(1)
    assert runner.leftovers() != [pid]


def test_a_trainer_that_does_not_answer_is_killed_and_the_job_starts_in_another(runner):
    runner.start(warm=1)
    runner.wait_for_warm(1)
    folder = runner.run("mute-once")
    job = runner.wait_for_state(folder, "Reaped")
    assert (job.exit.cause, job.exit.exit_code) == ("Exited", 0)
    assert (job.start.mode, job.start.why) == (
        "Cold",
        "a warm trainer failed: 2 s passed before it began",
    )
    runner.wait_for_warm(1)
    assert len(runner.leftovers()) == 1


def test_three_failed_spawns_turn_warm_starts_off_and_the_snapshot_says_so(runner, until):
    runner.start(warm=1, trainer=[*runner.FAKE_TRAINER, "--broken"])
    message = until(lambda: runner.snapshot().message, "a message")
    assert message == (
        "3 trainers in a row failed before their job began, so jobs start cold: "
        "it ended before it had imported what it needs (no such library)"
    )
    folder = runner.run("end")
    record = runner.wait_for_state(folder, "Reaped").exit
    assert (record.cause, record.exit_code) == ("StartFailed", 3)


def test_a_trainer_sees_only_the_listed_environment_and_gains_no_privileges(runner, monkeypatch):
    monkeypatch.setenv("CYXWIZ_SECRET", "from the runner's own environment")
    runner.start("--data-root", "/data", warm=1)
    runner.wait_for_warm(1)
    folder = runner.run("work")
    job = runner.wait_for_state(folder, "Running")
    facts = json.loads((folder.path / "facts.json").read_text())
    environment = facts["environment"]
    assert environment["CYXWIZ_DATA_ROOT"] == "/data"
    assert environment["CUDA_VISIBLE_DEVICES"] == ""
    assert "CYXWIZ_SECRET" not in environment
    assert Path(environment["HOME"]).is_dir()
    assert "NoNewPrivs:\t1" in facts["status"]
    assert facts["nice"] == 0  # it gave way only while it warmed up
    assert os.getsid(job.pid) == job.pid
    runner.stop(folder, 0)
    runner.wait_for_state(folder, "Reaped")
    assert not Path(environment["HOME"]).exists()


def test_a_stopped_job_may_save_within_its_grace(serving):
    folder = serving.run("work")
    serving.wait_for_state(folder, "Running")
    assert serving.stop(folder, 30) == {"ok": True}
    record = serving.wait_for_state(folder, "Reaped").exit
    assert (record.cause, record.exit_code) == ("Stopped", 20)


def test_a_job_deaf_to_sigterm_is_killed_after_its_grace_together_with_its_daemon(serving):
    folder = serving.run("deaf")
    pid, daemon = serving.wait_for_state(folder, "Running").pid, serving.daemon_of(folder)
    serving.stop(folder, 0.3)
    record = serving.wait_for_state(folder, "Reaped").exit
    assert (record.cause, record.signal) == ("Stopped", signal.SIGKILL)
    assert not lives(pid)
    assert not lives(daemon)


@pytest.mark.parametrize("behaviour", ["leave-daemon", "leave-daemon-without-environment"])
def test_what_a_job_leaves_behind_is_killed_and_reaped_before_its_end_is_told(serving, behaviour):
    folder = serving.run(behaviour)
    record = serving.wait_for_state(folder, "Reaped").exit
    assert (record.cause, record.exit_code) == ("Exited", 0)
    assert not lives(serving.daemon_of(folder))
    assert not [pid for pid in serving.children() if not lives(pid)], "a zombie is left"


def test_an_order_whose_processes_never_ran_can_be_stopped(serving):
    job = serving.new_job()
    serving.run("deaf", job=job, attempt=1)
    higher = serving.run("work", job=job, attempt=2)
    serving.stop(higher, 10)
    record = serving.wait_for_state(higher, "Reaped").exit
    assert (record.cause, record.exit_code, record.started_at) == ("Stopped", None, None)


def test_a_passed_deadline_stands_every_process_still_and_a_renewal_thaws_them(serving, until):
    folder = serving.run("deaf", seconds=1)
    pid, daemon = serving.wait_for_state(folder, "Running").pid, serving.daemon_of(folder)
    serving.wait_for_state(folder, "Frozen")
    until(lambda: {state_of(pid), state_of(daemon)} == {"T"}, "both are stopped")
    used = cpu_ticks(pid), cpu_ticks(daemon)

    assert serving.renew(folder, 60) == {"ok": True}
    serving.wait_for_state(folder, "Running")
    until(lambda: cpu_ticks(pid) > used[0] and cpu_ticks(daemon) > used[1], "both compute again")
    assert serving.job(folder).frozen_seconds > 0


def test_a_frozen_job_uses_no_cpu_time(serving, until):
    folder = serving.run("work", seconds=1)
    pid = serving.wait_for_state(folder, "Frozen").pid
    until(lambda: state_of(pid) == "T", "it is stopped")
    used = cpu_ticks(pid)
    other = serving.wait_for_state(serving.run("work"), "Running").pid
    until(lambda: cpu_ticks(other) > 10, "another job has computed meanwhile")
    assert cpu_ticks(pid) == used


def test_a_frozen_job_that_is_stopped_is_killed_without_waiting_for_its_grace(serving):
    folder = serving.run("work", seconds=1)
    serving.wait_for_state(folder, "Frozen")
    serving.stop(folder, 3600)
    record = serving.wait_for_state(folder, "Reaped").exit
    assert (record.cause, record.signal) == ("Stopped", signal.SIGKILL)


def test_a_higher_attempt_ends_the_lower_one_and_waits_until_it_is_reaped(serving):
    job = serving.new_job()
    lower = serving.run("deaf", job=job, attempt=1)
    serving.wait_for_state(lower, "Running")
    higher = serving.run("work", job=job, attempt=2)
    assert serving.job(higher).state == "Waiting"
    serving.wait_for_state(higher, "Running")
    serving.stop(higher, 10)
    begun_at = serving.wait_for_state(higher, "Reaped").exit.started_at
    ended = serving.job(lower).exit
    assert ended.cause == "Stopped"
    assert ended.ended_at <= begun_at


def test_a_lower_attempt_is_refused(serving):
    job = serving.new_job()
    serving.run("work", job=job, attempt=2)
    answer = serving.ask(**serving.order("work", job=job, attempt=1))
    assert answer["reason"] == "LowerAttempt"


def test_the_agent_names_the_gpus_that_trainers_wait_on(runner):
    runner.start("--warm-gpu", "all")
    assert runner.snapshot().warm_gpus == []
    assert runner.ask(verb="warm", gpus=["GPU-b", "GPU-a"])["ok"]
    assert runner.wait_for_warm(2).warm_gpus == ["GPU-a", "GPU-b"]
    assert runner.ask(verb="warm", gpus=["GPU-b"])["ok"]
    assert runner.wait_for_warm(1).warm_gpus == ["GPU-b"]


def test_gpus_of_the_command_line_are_not_the_agents_to_name(runner):
    runner.start("--warm-gpu", "GPU-a")
    assert runner.snapshot().warm_gpus is None
    answer = runner.ask(verb="warm", gpus=["GPU-b"])
    assert not answer["ok"]
    assert "--warm-gpu all" in answer["message"]
