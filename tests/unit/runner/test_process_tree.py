"""Which processes are a job's, from made-up process tables and from this very process."""

import os
import signal
import subprocess

from cyxwiz_runner.process_tree import Process, find_process, is_stopped, parse_stat, select_tree, send_signal

ROOT = Process(pid=10, state="S", parent=1, session=10, start_time=500)


def make_process(pid, parent=1, session=1, start_time=600):
    return Process(pid, "S", parent, session, start_time)


def look_at(pid):
    process = find_process(pid)
    assert process is not None
    return process


def tree(*processes, markers=None):
    found = select_tree(ROOT, [ROOT, *processes], lambda pid: (markers or {}).get(pid) == "mine")
    return sorted(process.pid for process in found)


def test_a_name_with_spaces_and_brackets_does_not_shift_the_fields():
    line = "42 (evil) R 1 ) T 7 8 9 0 -1 4194304 4 0 0 0 0 0 0 0 20 0 3 0 132144 430080 0"
    assert parse_stat(line) == Process(pid=42, state="T", parent=7, session=9, start_time=132144)


def test_the_session_and_all_descendants_belong_to_the_tree():
    grandchild = make_process(13, parent=12, session=12)
    assert tree(make_process(11, session=10), make_process(12, parent=10, session=12), grandchild) == [10, 11, 12, 13]


def test_a_daemon_is_found_by_its_marker_and_its_children_with_it():
    daemon, child = make_process(20, session=20), make_process(21, parent=20, session=21)
    assert tree(child, daemon, markers={20: "mine"}) == [10, 20, 21]


def test_strangers_and_other_trainers_are_left_alone():
    assert tree(make_process(20), make_process(30, session=30), markers={30: "other"}) == [10]


def test_a_process_older_than_the_trainer_cannot_be_its_own():
    assert tree(make_process(20, start_time=499), markers={20: "mine"}) == [10]


def test_a_process_that_is_gone_is_none():
    child = subprocess.Popen(["true"])
    child.wait()
    assert find_process(child.pid) is None


def test_a_signal_for_a_pid_that_means_another_process_by_now_is_not_sent():
    child = subprocess.Popen(["sleep", "60"])
    try:
        process = look_at(child.pid)
        earlier = Process(child.pid, "S", process.parent, process.session, process.start_time - 1)
        send_signal(earlier, signal.SIGKILL)
        assert child.poll() is None
        send_signal(process, signal.SIGKILL)
        assert child.wait(30) == -signal.SIGKILL
        send_signal(process, signal.SIGKILL)  # gone: nothing happens
    finally:
        child.kill()
        child.wait()


def test_a_process_is_stopped_when_all_its_threads_are():
    child = subprocess.Popen(["sleep", "60"])
    try:
        assert not is_stopped(look_at(child.pid))
        os.kill(child.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED)
        assert is_stopped(look_at(child.pid))
    finally:
        child.kill()
        child.wait()
