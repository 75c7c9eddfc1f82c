"""Claims on disk, and what becomes of those an earlier runner left."""

import pytest

from cyxwiz_protocol.job_folder import JobFolder
from cyxwiz_protocol.records import ExitRecord
from cyxwiz_protocol.runner_api import RunRequest
from cyxwiz_runner.journal import Journal, read_exit, settle, write_exit
from cyxwiz_runner.process_tree import Process
from cyxwiz_runner.state import AlreadyRunning, hold_state


def make_request(assignment_id="a-1"):
    return RunRequest(
        assignment_id=assignment_id, job_uid="a", attempt=1, key="default/a", memory_bytes=1, deadline=1.0
    )


def make_folder(state, assignment_id="a-1"):
    folder = JobFolder.of(state, assignment_id)
    folder.path.mkdir(parents=True)
    return folder


def test_a_claim_is_read_back_as_it_was_written(tmp_path):
    journal = Journal(tmp_path)
    journal.write(make_request(), Process(7, "S", 1, 7, 99), "marker/1")
    (claim,) = Journal(tmp_path).claims()
    assert (claim.request, claim.pid, claim.start_time, claim.marker) == (make_request(), 7, 99, "marker/1")


def test_a_dropped_claim_is_gone_and_dropping_it_again_is_fine(tmp_path):
    journal = Journal(tmp_path)
    journal.write(make_request())
    journal.drop("a-1")
    journal.drop("a-1")
    assert journal.claims() == []


def test_a_torn_claim_does_not_hide_the_others(tmp_path):
    journal = Journal(tmp_path)
    journal.write(make_request("b-1"))
    (tmp_path / "a-1.json").write_text('{"request": {')
    assert [claim.request.assignment_id for claim in journal.claims()] == ["b-1"]


def test_a_claim_nobody_ended_ended_with_its_runner(tmp_path):
    folder = make_folder(tmp_path)
    journal = Journal(tmp_path)
    journal.write(make_request())
    ((_, record),) = settle(journal.claims(), tmp_path)
    assert record.cause == "RunnerRestarted"
    assert read_exit(folder) == record
    assert settle(journal.claims(), tmp_path)[0][1] == record  # a third runner does not end it again


def test_an_end_that_was_written_stands(tmp_path):
    record = ExitRecord(assignment_id="a-1", cause="Exited", exit_code=0, ended_at=5.0)
    write_exit(make_folder(tmp_path), record)
    journal = Journal(tmp_path)
    journal.write(make_request())
    assert settle(journal.claims(), tmp_path)[0][1] == record


def test_a_folder_that_was_removed_needs_no_end(tmp_path):
    write_exit(JobFolder.of(tmp_path, "a-1"), ExitRecord(assignment_id="a-1", cause="Stopped", ended_at=5.0))
    assert not (tmp_path / "jobs").exists()


def test_a_state_folder_keeps_its_identity_and_gives_each_run_another_instance(tmp_path):
    first = hold_state(tmp_path)
    with pytest.raises(AlreadyRunning, match="another runner holds"):
        hold_state(tmp_path)
    first.release()
    second = hold_state(tmp_path)
    assert (first.identity, first.instance != second.instance) == (second.identity, True)
    assert second.instance.startswith(f"{second.identity}.")
    second.release()
