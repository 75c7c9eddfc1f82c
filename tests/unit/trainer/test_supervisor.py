"""Several processes that end as one. The ranks here only print, wait and die."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cyxwiz_protocol.records import ExitCode
from cyxwiz_trainer.supervisor import End, Seat, run_ranks

FOR_EVER_S = 60.0


def run(size: int, body: Callable[[Seat], int]) -> End:
    """As in a process of its own, where Python's streams are the descriptors 1 and 2."""

    def speaking(seat: Seat) -> int:
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        return body(seat)

    return run_ranks(size, speaking)


def wait() -> int:
    time.sleep(FOR_EVER_S)
    return 0


def test_ranks_that_end_well_end_well_together(capfd: pytest.CaptureFixture[str]) -> None:
    def body(seat: Seat) -> int:
        print(f"one of {seat.size}", flush=True)
        return 0

    assert run(3, body) == End(code=0)
    # The first rank's end is the job's: another may not have come to its line.
    assert "rank 0: one of 3" in capfd.readouterr().out.splitlines()


@pytest.mark.parametrize("failing", [0, 2])
def test_the_first_rank_that_fails_ends_all_with_its_code(failing: int, capfd: pytest.CaptureFixture[str]) -> None:
    def body(seat: Seat) -> int:
        if seat.rank == failing:
            raise KeyError("the cause")
        return wait()

    assert run(3, body) == End(code=1)
    lines = capfd.readouterr().out.splitlines()
    assert lines[-2:] == [
        f"rank {failing}: KeyError: 'the cause'",
        f"rank {failing} of 3 ended with exit code 1: all were ended",
    ]


def test_a_killed_rank_ends_all_and_the_signal_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    def body(seat: Seat) -> int:
        if seat.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return wait()

    assert run(2, body) == End(signal=signal.SIGKILL)
    assert capfd.readouterr().out.splitlines() == ["rank 1 of 2 was killed by SIGKILL: all were ended"]


def test_a_failure_with_a_record_needs_no_line_in_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(2, lambda seat: ExitCode.FAILED if seat.rank else wait()) == End(code=ExitCode.FAILED)
    assert capfd.readouterr().out == ""


def test_the_job_is_over_when_the_first_rank_is_and_not_before() -> None:
    def body(seat: Seat) -> int:
        if seat.rank == 0:
            assert seat.links[0].recv(1) == b""  # the second rank has ended
            return ExitCode.STOPPED
        return 0 if seat.rank == 1 else wait()

    assert run(3, body) == End(code=ExitCode.STOPPED)


def test_ranks_hear_each_other_over_their_links_and_see_one_board() -> None:
    def body(seat: Seat) -> int:
        if seat.rank > 0:
            seat.board[8 * seat.rank] = seat.rank
            seat.links[0].sendall(bytes([seat.rank]))
            return 0
        heard = [link.recv(1)[0] for link in seat.links]
        return 0 if heard == [1, 2] == [seat.board[8], seat.board[16]] else 1

    assert run(3, body) == End(code=0)


def test_a_line_without_end_and_the_last_words_reach_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    def body(seat: Seat) -> int:
        sys.stdout.write("x" * 20_000)
        sys.stdout.write("\nlast words")
        return 7

    assert run(1, body) == End(code=7)
    lines = capfd.readouterr().out.splitlines()
    assert sum(line.count("x") for line in lines) >= 20_000
    assert lines[-2:] == ["rank 0: last words", "rank 0 of 1 ended with exit code 7: all were ended"]


def test_nothing_is_left_of_the_place_where_ranks_met(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def body(seat: Seat) -> int:
        (seat.meeting / "store").touch()
        return 0 if seat.meeting.parent == tmp_path else 1

    assert run(2, body) == End(code=0)
    assert not list(tmp_path.iterdir())
