"""What is written counts at once; what is seen again changes nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cyxwiz_operator.decisions import Decisions, decide
from cyxwiz_operator.ledger import Ledger
from cyxwiz_operator.lifecycle import StatusChange
from cyxwiz_operator.views import JobView, Liveness, NodeView

from .builders import NOW, make_bound_job, make_job, make_node, make_snapshot, reported, truth, written


def decided(jobs: list[JobView], nodes: list[NodeView], ledger: Ledger | None = None) -> Decisions:
    return decide(make_snapshot(jobs, nodes, ledger), most_binds=100)


def all_of(decisions: Decisions) -> list[StatusChange]:
    return [*decisions.binds, *decisions.changes, *decisions.explanations]


def test_two_passes_with_the_stale_view_bind_once() -> None:
    job, ledger = make_job(), Ledger()
    [bind] = decided([job], [make_node()], ledger).binds
    ledger.assume(job, written(bind))
    assert all_of(decided([job], [make_node()], ledger)) == []


def test_an_assumed_binding_takes_its_place() -> None:
    first, second, ledger = make_job("first"), make_job("second", cpus=8), Ledger()
    [bind] = decided([first], [make_node(cpus=8)], ledger).binds
    ledger.assume(first, written(bind))
    assert decided([first, second], [make_node(cpus=8)], ledger).binds == ()


def test_the_entry_ends_when_the_watch_shows_the_write() -> None:
    job, ledger = make_job(), Ledger()
    [bind] = decided([job], [make_node()], ledger).binds
    seen = written(bind)
    ledger.assume(job, seen)
    running = reported(seen, state="Running")
    [change] = decided([running], [make_node()], ledger).changes
    assert change.status.phase == "Running"
    assert len(ledger) == 0


def test_an_older_attempt_does_not_end_the_entry() -> None:
    job, ledger = make_bound_job(attempt=2, version="5"), Ledger()
    ledger.assume(make_job(version="4"), job)
    ledger.settle({job.uid: make_job(version="3")}, NOW.boot)
    assert ledger.holds(job)


def test_a_refused_write_waits_for_a_newer_version_or_its_time() -> None:
    job, ledger = make_job(version="1"), Ledger()
    ledger.set_aside(job, until=NOW.boot + 5)
    ledger.settle({job.uid: job}, NOW.boot + 4.9)
    assert ledger.holds(job)
    ledger.settle({job.uid: make_job(version="2")}, NOW.boot)
    assert not ledger.holds(job)
    ledger.set_aside(job, until=NOW.boot + 5)
    ledger.settle({job.uid: job}, NOW.boot + 5)
    assert not ledger.holds(job)


def test_a_job_that_is_gone_leaves_no_entry() -> None:
    job, ledger = make_job(), Ledger()
    ledger.assume(job, job)
    ledger.settle({}, NOW.boot)
    assert len(ledger) == 0


JOBS = [
    make_job("fits"),
    make_job("huge", gpus=8),
    make_job("waits", cpus=8),
    make_job("suspended", suspend=True),
    make_job("cancelled", cancel=True),
    make_bound_job("runs", execution={"state": "Running"}, status={"phase": "Bound"}),
    make_bound_job("crashed", execution={"state": "Failed", "reason": "Crashed"}),
    make_bound_job("refused", execution={"state": "Rejected", "reason": "NoFreeCPU"}),
    make_bound_job("ended", execution={"state": "Succeeded"}),
    make_bound_job("unclaimed", bound_s_ago=20),
]


def test_a_second_pass_changes_nothing() -> None:
    nodes = [make_node(cpus=8)]
    first = decided(JOBS, nodes)
    after = {job.uid: job for job in JOBS}
    changed = [change.job.uid for change in all_of(first)]
    assert len(changed) == len(set(changed)) == len(JOBS)
    for change in all_of(first):
        after[change.job.uid] = written(change)
    again = decided(list(after.values()), nodes)
    # Places that the first pass freed may be given away now; nothing that was written is written again.
    assert again.changes == ()
    for change in all_of(again):
        after[change.job.uid] = written(change)
    assert all_of(decided(list(after.values()), nodes)) == []


def test_a_lost_job_is_released_and_bound_again_by_one_write() -> None:
    job = make_bound_job(node="node-gone", execution={"state": "Running"})
    [change] = decided_with_lost_node(job).binds
    assert change.job is job
    assert (change.status.attempt, change.status.execution) == (2, None)
    assert change.status.assignment is not None
    assert change.status.assignment.node == "node-a"
    assert [record.outcome for record in change.status.history] == ["NodeLost"]
    assert [note.reason for note in change.notes] == ["Retrying", "Bound"]
    assert change.outcome == "NodeLost"


def decided_with_lost_node(job: JobView) -> Decisions:
    liveness = {"node-a": Liveness.ONLINE, "node-gone": Liveness.FENCED}
    return decide(replace(make_snapshot([job], [make_node()]), liveness=liveness), most_binds=100)


def test_a_refused_job_does_not_go_back_to_the_node_that_refused_it() -> None:
    refused = make_bound_job(execution={"state": "Rejected", "reason": "NoFreeCPU"})
    [bind] = decided([refused], [make_node("node-a"), make_node("node-b", cpus=1)]).binds
    assert bind.status.assignment is not None
    assert bind.status.assignment.node == "node-b"
    [waits] = decided([refused], [make_node("node-a")]).changes
    assert (waits.status.phase, waits.status.reason) == ("Queued", "NoNodeFree")
    assert waits.outcome == "Rejected"


def test_a_checkpoint_on_another_node_is_not_restored_and_the_summary_says_so() -> None:
    source = {"attempt": 1, "step": 400, "digest": "d", "uri": "node://node-gone/x/step-400"}
    job = make_job(status={"restoreFrom": source, "attempt": 1})
    [bind] = decided([job], [make_node()]).binds
    assert bind.status.assignment is not None
    assert bind.status.assignment.restore_from is None
    assert bind.status.summary == "Bound to node-a (attempt 2). Starts anew: its checkpoint is on node-gone."


def test_a_job_bound_in_its_first_pass_is_never_queued() -> None:
    decisions = decided([make_job()], [make_node()])
    assert (len(decisions.binds), decisions.changes, decisions.explanations) == (1, (), ())


def test_the_first_explanation_comes_with_the_phase_and_later_ones_alone() -> None:
    job = make_job(gpus=8)
    first = decided([job], [make_node()])
    assert [change.status.phase for change in first.changes] == ["Queued"]
    assert truth(first.changes[0].after) == {"Scheduled": "False"}
    later_on = decided([written(first.changes[0])], [make_node(), make_node("node-b")])
    assert (later_on.changes, len(later_on.explanations)) == ((), 1)


@pytest.mark.parametrize("deleted", ["2026-01-01T00:00:00Z"])
def test_a_job_that_is_being_deleted_is_left_alone(deleted: str) -> None:
    job = make_job()
    metadata = job.job.metadata.model_copy(update={"deletion_timestamp": deleted})
    doomed = JobView(job.job.model_copy(update={"metadata": metadata}))
    assert all_of(decided([doomed], [make_node()])) == []
