"""What happens to jobs when the runner ends, is killed, or comes back."""

import json
import signal

import pytest

from cyxwiz_runner.process_tree import find_process


def lives(pid):
    process = find_process(pid)
    return process is not None and not process.is_dead


def test_a_runner_that_is_killed_takes_its_trainers_along(runner, until):
    runner.start(warm=1)
    runner.wait_for_warm(1)
    pid = runner.wait_for_state(runner.run("work"), "Running").pid
    runner.wait_for_warm(1)
    runner.end(signal.SIGKILL)
    until(lambda: not lives(pid) and not runner.leftovers(), "all trainers are gone")


def test_a_restarted_runner_ends_what_the_earlier_one_left_and_tells_of_it_until_forgotten(runner):
    runner.start()
    folder = runner.run("deaf")
    runner.wait_for_state(folder, "Running")
    daemon = runner.daemon_of(folder)
    runner.end(signal.SIGKILL)
    assert lives(daemon)
    assert not folder.exit.exists()

    runner.start()
    job = runner.job(folder)
    assert (job.state, job.exit.cause) == ("Reaped", "RunnerRestarted")
    assert json.loads(folder.exit.read_text())["cause"] == "RunnerRestarted"
    assert not lives(daemon)
    assert not runner.leftovers()

    assert runner.forget(folder) == {"ok": True}
    runner.end()
    runner.start()
    assert runner.job(folder) is None


def test_an_end_that_the_agent_has_not_heard_of_outlives_the_runner(runner):
    runner.start()
    folder = runner.run("crash")
    ended = runner.wait_for_state(folder, "Reaped")
    runner.end(signal.SIGKILL)
    runner.start()
    assert runner.job(folder).exit == ended.exit


def test_a_runner_that_is_told_to_end_lets_jobs_save_and_leaves_nothing(runner):
    runner.start(warm=1)
    runner.wait_for_warm(1)
    folder = runner.run("work")
    runner.wait_for_state(folder, "Running")
    assert runner.end(signal.SIGTERM) == 0
    record = json.loads(folder.exit.read_text())
    assert (record["cause"], record["exitCode"]) == ("RunnerRestarted", 20)
    assert not runner.leftovers()
    assert not (runner.state / "runner.sock").exists()


@pytest.mark.parametrize("impatient", [False, True], ids=["after the grace", "at once when told twice"])
def test_a_runner_that_is_told_to_end_kills_deaf_jobs(runner, impatient, until):
    runner.start("--grace", "3600" if impatient else "0.2")
    folder = runner.run("deaf")
    runner.wait_for_state(folder, "Running")
    watch = runner.client()
    watch.send(b'{"verb": "watch"}')
    if impatient:
        runner.send_signal(signal.SIGTERM)
        until(lambda: watch.read()["jobs"][0]["state"] == "Ending", "the grace has begun")
    assert runner.end(signal.SIGTERM) == 0
    assert json.loads(folder.exit.read_text())["signal"] == signal.SIGKILL
    *_, last = iter(watch.read, None)  # a watcher hears of the end before the runner goes
    assert last["jobs"][0]["state"] == "Reaped"
    watch.close()


def test_an_agent_that_vanishes_changes_nothing_for_a_running_job(runner):
    runner.start()
    agent = runner.client()
    request = runner.order("work")
    agent.ask(**request)
    folder = runner.folder(request)
    pid = runner.wait_for_state(folder, "Running").pid
    agent.close()
    runner.stop(runner.run("end"), 0)  # the runner has seen the connection close
    assert (runner.job(folder).state, runner.job(folder).pid) == ("Running", pid)
