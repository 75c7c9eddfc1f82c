"""What a job prints, as the runner's own output shows it and its log keeps it."""

import os
import time

import pytest

from cyxwiz_runner import output
from cyxwiz_runner.output import LINE_BYTES, LINES_AT_ONCE, Echo, Follower, write_if_ready

PREFIX = "team/digits 2"


@pytest.mark.parametrize(
    ("parts", "shown"),
    [
        ([b"one\ntwo\n"], ["one", "two"]),
        ([b"half a ", b"line\n"], ["half a line"]),
        ([b"no end"], []),
        ([b"10%\r20%\r100%\n"], ["10%", "20%", "100%"]),
        ([b"\n\n\na\n\n"], ["a"]),
        ([b"\x1b[2Jgone\x07\tx\n"], ["?[2Jgone?\tx"]),
        ([b"\xff\n", "für\n".encode()], ["\ufffd", "für"]),
        ([b"x" * (LINE_BYTES + 5) + b"\n"], ["x" * LINE_BYTES + " ..."]),
        ([b"y" * 10_000, b"y" * 10_000, b"\n"], ["y" * LINE_BYTES + " ..."]),
    ],
)
def test_lines_are_whole_bounded_printable_and_bear_the_job(parts, shown):
    echo = Echo(PREFIX)
    lines = [line for part in parts for line in echo.lines(part)]
    assert [line.decode() for line in lines] == [f"{PREFIX} | {text}\n" for text in shown]


def test_the_last_word_is_told_without_its_newline_when_the_job_has_ended():
    echo = Echo(PREFIX)
    assert echo.lines(b"last word") == []
    assert echo.lines(b"", final=True) == [f"{PREFIX} | last word\n".encode()]


def test_of_a_flood_the_newest_lines_are_shown_and_the_others_counted():
    lines = Echo(PREFIX).lines(b"".join(b"%d\n" % number for number in range(LINES_AT_ONCE + 7)))
    assert lines[0] == f"{PREFIX} | (7 lines left out)\n".encode()
    assert lines[-1] == f"{PREFIX} | {LINES_AT_ONCE + 6}\n".encode()
    assert len(lines) == LINES_AT_ONCE + 1


@pytest.fixture
def shown(tmp_path):
    """A descriptor to write to, and what was written."""
    path = tmp_path / "shown"
    with path.open("wb") as file:
        yield file.fileno(), path.read_text


def test_a_log_is_followed_from_look_to_look(tmp_path, shown):
    descriptor, text = shown
    log = tmp_path / "trainer.log"
    follower = Follower(log, "a/b 1", descriptor)
    follower.look()
    log.write_text("one\n")
    follower.look()
    follower.look()
    with log.open("a") as file:
        file.write("two\n")
    follower.look()
    assert text() == "a/b 1 | one\na/b 1 | two\n"


def test_a_log_over_its_bound_keeps_its_newest_part_and_its_writer_goes_on(tmp_path, shown, monkeypatch):
    monkeypatch.setattr(output, "LOG_BYTES", 10_000)
    monkeypatch.setattr(output, "KEPT_BYTES", 100)
    log = tmp_path / "trainer.log"
    with log.open("ab", buffering=0) as writer:
        follower = Follower(log, "a/b 1", shown[0])
        for number in range(2000):
            writer.write(b"line %06d\n" % number)
        follower.look()
        writer.write(b"after\n")
    lines = log.read_text().splitlines()
    assert lines[0] == "cyxwiz-runner: the log grew over 16Mi, its beginning was removed"
    assert lines[-2:] == ["line 001999", "after"]
    assert log.stat().st_size < 1000
    follower.look()
    assert shown[1]().endswith("a/b 1 | line 001999\na/b 1 | after\n")


def test_a_log_that_became_a_link_is_not_followed(tmp_path, shown):
    (tmp_path / "secret").write_text("secret\n")
    (tmp_path / "trainer.log").symlink_to(tmp_path / "secret")
    Follower(tmp_path / "trainer.log", "a/b 1", shown[0]).look()
    assert shown[1]() == ""


def test_a_reader_that_does_not_read_holds_up_nobody():
    reader, writer = os.pipe()
    try:
        began = time.monotonic()
        write_if_ready([b"x" * 2000 + b"\n"] * 1000, writer)
        assert time.monotonic() - began < 5
    finally:
        os.close(reader)
        os.close(writer)
