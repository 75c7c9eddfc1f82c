"""What may be said on the socket, said twice, said wrongly, or not be said at all."""

import stat

import pytest

from cyxwiz_protocol.clock import boottime
from cyxwiz_protocol.runner_api import LONGEST_LINE_BYTES, socket_path


def test_only_the_runners_user_may_connect(serving):
    assert stat.S_IMODE(socket_path(serving.state).stat().st_mode) == 0o600


def test_run_said_twice_starts_one_job(serving):
    request = serving.order("work")
    assert serving.ask(**request) == serving.ask(**request) == {"ok": True}
    pid = serving.wait_for_state(serving.folder(request), "Running").pid
    assert serving.ask(**request) == {"ok": True}
    assert [job.pid for job in serving.snapshot().jobs] == [pid]


def test_run_said_again_after_the_end_starts_nothing(serving):
    request = serving.order("end")
    serving.ask(**request)
    folder = serving.folder(request)
    ended = serving.wait_for_state(folder, "Reaped")
    assert serving.ask(**request) == {"ok": True}
    assert serving.job(folder) == ended
    serving.forget(folder)
    assert serving.ask(**request)["reason"] == "AlreadyEnded"


def test_stop_said_twice_stops_once_and_the_shorter_grace_holds(serving):
    folder = serving.run("deaf")
    serving.wait_for_state(folder, "Running")
    assert serving.stop(folder, 3600) == {"ok": True}
    assert serving.wait_for_state(folder, "Ending")
    assert serving.stop(folder, 0) == {"ok": True}
    assert serving.wait_for_state(folder, "Reaped").exit.cause == "Stopped"
    assert serving.stop(folder, 0) == {"ok": True}


def test_forget_said_twice_is_fine_and_said_too_early_is_refused(serving):
    folder = serving.run("work")
    assert serving.forget(folder)["reason"] == "BadRequest"
    serving.stop(folder, 0)
    serving.wait_for_state(folder, "Reaped")
    assert serving.forget(folder) == serving.forget(folder) == {"ok": True}
    assert serving.snapshot().jobs == []


def test_what_is_not_known_is_said_so(serving):
    folder = serving.run("work")
    stranger = serving.folder({"assignmentId": "stranger"})
    assert serving.stop(stranger, 1)["reason"] == "UnknownAssignment"
    answer = serving.ask(verb="renew", deadlines={"stranger": 1.0, folder.assignment_id: boottime() + 60})
    assert answer == {"ok": False, "reason": "UnknownAssignment", "message": "not known here: stranger"}


def test_a_job_without_an_order_or_with_a_passed_deadline_is_refused(serving):
    assert serving.ask(**serving.order("work", seconds=-5))["reason"] == "DeadlinePassed"
    request = serving.order("work")
    serving.folder(request).order.unlink()
    assert serving.ask(**request)["reason"] == "NoOrder"
    assert serving.snapshot().jobs == []


GARBAGE = {
    "empty": b"",
    "no JSON": b"garbage",
    "no text": b"\xff\xfe",
    "a list": b"[]",
    "an unknown verb": b'{"verb": "dance"}',
    "a run of nothing": b'{"verb": "run"}',
    "a deadline in words": b'{"verb": "renew", "deadlines": {"a": "soon"}}',
    "a deadline that is no number": b'{"verb": "renew", "deadlines": {"a": NaN}}',
    "a path for an id": b'{"verb": "run", "assignmentId": "../x", "jobUid": "x", "attempt": 1, "key": "x",'
    b' "memoryBytes": 1, "deadline": 1e12}',
    "brackets without end": b"[" * 100_000,
}


def test_garbage_is_answered_and_the_connection_goes_on(serving):
    client = serving.client()
    for kind, line in GARBAGE.items():
        client.send(line)
        answer = client.read()
        assert (answer["ok"], answer["reason"]) == (False, "BadRequest"), kind
        assert len(answer["message"]) < 300
    assert client.ask(verb="list")["jobs"] == []
    client.close()


def test_a_line_that_does_not_end_closes_only_its_own_connection(serving):
    client = serving.client()
    with pytest.raises((ConnectionError, AssertionError)):  # noqa: PT012  # the close may be seen by either
        client.send(b"x" * (LONGEST_LINE_BYTES * 3))
        assert client.read() is not None
    client.close()
    assert serving.answers()


def test_a_watcher_sees_the_whole_life_of_a_job(serving):
    watch = serving.client()
    watch.send(b'{"verb": "watch"}')
    assert watch.read().get("jobs") == []
    folder = serving.run("end")
    states = []
    while "Reaped" not in states:
        for job in watch.read()["jobs"]:
            states += [job["state"]] if job["state"] not in states else []
    order = ["Waiting", "Starting", "Running", "Ending", "Reaped"]
    assert states == [state for state in order if state in states]
    serving.forget(folder)
    while watch.read()["jobs"]:
        pass
    watch.close()


def test_a_watcher_that_does_not_read_holds_up_nobody(serving):
    lazy = serving.client()
    lazy.send(b'{"verb": "watch"}')
    for _ in range(3):
        serving.wait_for_state(serving.run("end"), "Reaped")
    lazy.close()
    assert serving.answers()
