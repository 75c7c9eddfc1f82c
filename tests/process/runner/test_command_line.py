"""The runner's command line: refusals and exit statuses."""

import subprocess
import sys
from pathlib import Path


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "cyxwiz_runner", *arguments], capture_output=True, text=True, timeout=60
    )


def test_a_second_runner_on_the_same_folder_is_refused_in_one_sentence(runner):
    runner.start()
    second = run("--state", str(runner.state))
    assert second.returncode == 3
    assert second.stderr == f"cyxwiz-runner: another runner holds {runner.state}\n"
    assert runner.answers()


def test_a_state_folder_that_cannot_be_used_is_told_without_a_traceback(tmp_path):
    (tmp_path / "file").write_text("")
    ended = run("--state", str(tmp_path / "file"))
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    ended = run("--state", str(tmp_path / ("long" * 30)), "--warm", "0")
    assert (ended.returncode, "path too long" in ended.stderr) == (1, True)
    assert "Traceback" not in ended.stderr


def test_the_runner_alone_is_small_and_loads_no_torch(runner):
    runner.start()
    status = dict(line.split(":", 1) for line in Path(f"/proc/{runner.pid}/status").read_text().splitlines())
    assert int(status["VmRSS"].split()[0]) < 60_000
    assert int(status["Threads"]) == 1  # what runs between fork and exec relies on it
    assert "torch" not in Path(f"/proc/{runner.pid}/maps").read_text()
