"""What ended jobs leave on the disk is removed without following where it points."""

import os
import tempfile
from pathlib import Path

import pytest

from cyxwiz_protocol.job_folder import JobFolder
from cyxwiz_runner.job_files import hand_back, open_to_append
from cyxwiz_runner.sweep import in_steps, remove_tree
from cyxwiz_runner.uids import why_not


async def test_a_tree_is_removed_and_what_its_links_point_to_stays(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    top = tmp_path / "top"
    (top / "a" / "b").mkdir(parents=True)
    (top / "a" / "file").touch()
    (top / "a" / "link").symlink_to(outside)
    await in_steps(remove_tree(top))
    assert not top.exists()
    assert (outside / "kept").exists()


def test_a_large_tree_is_removed_in_as_many_steps_as_it_has_entries(tmp_path):
    for number in range(300):
        (tmp_path / str(number)).touch()
    assert len(list(remove_tree(tmp_path))) > 300


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/etc/passwd")])
def test_a_log_that_is_no_regular_file_is_not_written_and_holds_up_nobody(tmp_path, make):
    make(tmp_path / "trainer.log")
    with pytest.raises(OSError):  # noqa: PT011  # which one depends on what lies there
        os.close(open_to_append(tmp_path / "trainer.log"))


def test_a_folder_that_was_handed_back_holds_no_trap_where_the_end_is_written(tmp_path):
    folder = JobFolder(tmp_path)
    (tmp_path / ".exit.json.7.tmp").symlink_to("/etc/passwd")
    list(hand_back(folder))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="another user has the first reason already")
def test_a_state_folder_that_others_cannot_reach_forbids_uids(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    assert "lets no other user through" in (why_not(closed / "state") or "")


@pytest.mark.skipif(os.geteuid() != 0, reason="another user has the first reason already")
def test_an_interpreter_that_others_cannot_reach_forbids_uids_and_does_not_fail_every_spawn():
    with tempfile.TemporaryDirectory(dir="/tmp") as top:
        state, closed = Path(top) / "state", Path(top) / "closed"
        Path(top).chmod(0o755)
        closed.mkdir(mode=0o700)
        (closed / "python").symlink_to("/bin/true")
        if reason := why_not(state, "/bin/true"):
            pytest.skip(reason)
        assert why_not(state, str(closed / "python")) == f"{closed} lets no other user through"
