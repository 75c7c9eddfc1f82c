"""Dry runs: answered by the scheduler as it stands, from what earlier jobs have shown, and nothing else changes."""

from __future__ import annotations

from typing import Any

import pytest

from cyxwiz_crds import TrainingJobSpec
from cyxwiz_crds.compute_node import Outcome
from cyxwiz_operator.decisions import Decisions, decide
from cyxwiz_operator.views import JobView, NodeView
from cyxwiz_operator.workload import measured_by, requirements_of, workload_of

from .builders import ago, make_bound_job, make_job, make_node, make_snapshot, truth

GPU = "Test GPU"


def succeeded(name: str = "earlier", *, node: str = "node-a", **job: Any) -> JobView:
    """A job of 5 epochs of 100 steps that took 50 s and 3 GiB on a GPU."""
    progress = {"step": 500, "totalSteps": 500, "samplesPerSecond": "400.0", "elapsedSeconds": 50}
    return make_bound_job(
        name,
        node=node,
        execution={
            "state": "Succeeded",
            "device": f"{GPU}, bfloat16, CUDA graph",
            "data": {"trainSamples": 3200, "validationSamples": 100},
            "progress": {**progress, "gpuMemoryPeak": "3Gi"},
        },
        status={"phase": "Succeeded", "finishedAt": ago(0)},
        **job,
    )


def knowing(*jobs: JobView, **node: Any) -> NodeView:
    """A node whose reputation holds what these jobs have shown."""
    outcomes = [Outcome(job=job.uid, good=True, ended_at=ago(0), measured=measured_by(job)).wire() for job in jobs]
    return make_node(**node, status={"reputation": {"score": "0.90", "outcomes": outcomes}})


def decided(*jobs: JobView, nodes: tuple[NodeView, ...]) -> Decisions:
    return decide(make_snapshot(jobs, nodes), most_binds=100)


def test_a_dry_run_is_answered_and_finished_without_a_place() -> None:
    job = make_job(gpus=1, dryRun=True)
    decisions = decided(job, nodes=(knowing(succeeded(gpus=1), gpus=2),))
    (change,) = decisions.changes
    status = change.status
    assert decisions.binds == ()
    assert (status.phase, status.reason, status.assignment, status.attempt) == ("Succeeded", "WouldStart", None, None)
    assert truth(change.after)["Finished"] == truth(change.after)["Complete"] == "True"
    assert status.dry_run is not None
    assert (status.dry_run.node, status.dry_run.gpu_memory, status.dry_run.measured_on) == ("node-a", "3Gi", 1)
    assert status.dry_run.duration_seconds == 50
    assert status.scheduling is not None
    assert status.scheduling.candidates[0].startswith("node-a 0.")
    assert "would start at once on node-a. It trains for about 50 s and holds up to 3Gi" in (status.summary or "")


def test_what_nobody_measured_is_unknown_and_says_what_would_make_it_known() -> None:
    other = knowing(succeeded(gpus=1, batchSize=64), gpus=2)
    (change,) = decided(make_job(gpus=1, dryRun=True), nodes=(other,)).changes
    assert change.status.dry_run is not None
    assert (change.status.dry_run.duration, change.status.dry_run.gpu_memory) == ("unknown", "unknown")
    assert "One with epochs: 1 makes it known" in (change.status.summary or "")


def test_what_was_measured_on_another_kind_of_gpu_says_nothing() -> None:
    job = succeeded(gpus=1)
    assert requirements_of(job.job.spec, knowing(job).outcomes, frozenset({GPU})) is not None
    assert requirements_of(job.job.spec, knowing(job).outcomes, frozenset({"Other GPU"})) is None


def test_one_that_would_wait_says_at_which_position_and_why() -> None:
    node = make_node(gpus=1)
    filler = make_bound_job("filler", gpus=1, gpu_uuids=["GPU-node-a-0"], execution={"state": "Running"})
    first = make_job("first", gpus=1, age_s=60, status={"phase": "Queued"})
    decisions = decided(filler, first, make_job("asks", gpus=1, dryRun=True), nodes=(node,))
    change = next(each for each in decisions.changes if each.job.job.metadata.name == "asks")
    assert (change.status.phase, change.status.reason) == ("Succeeded", "WouldWait")
    assert "would wait at position 2. 0/1 nodes have room" in (change.status.summary or "")
    assert "is kept" not in (change.status.summary or "")


def test_one_that_no_node_could_run_says_so() -> None:
    (change,) = decided(make_job(gpus=8, dryRun=True), nodes=(make_node(gpus=1),)).changes
    assert (change.status.phase, change.status.reason) == ("Succeeded", "NoNodeFits")
    assert "could not start. 0/1 nodes fit" in (change.status.summary or "")


def test_what_becomes_of_other_jobs_does_not_depend_on_a_dry_run() -> None:
    nodes = (make_node("node-a", gpus=1), make_node("node-b", gpus=1))
    jobs = [make_job(f"j{number}", gpus=1, age_s=number) for number in range(3)]
    without = decided(*jobs, nodes=nodes)
    urgent = make_job("asks", gpus=1, dryRun=True, priority=10)
    beside = decided(*jobs, urgent, nodes=nodes)
    assert [bind.status for bind in beside.binds] == [bind.status for bind in without.binds]
    assert beside.waiting == without.waiting
    told = [change for change in beside.changes if change.job.job.metadata.name != "asks"]
    assert [change.status for change in told] == [change.status for change in without.changes]


def test_a_second_dry_run_is_answered_in_the_next_pass() -> None:
    asks = [make_job(f"asks-{number}", dryRun=True) for number in range(2)]
    decisions = decided(*asks, nodes=(make_node(),))
    assert (len(decisions.changes), decisions.postponed) == (1, 1)


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        pytest.param({"epochs": 9}, True, id="epochs"),
        pytest.param({"hyperparameters": {"learningRate": 0.5, "seed": 3}}, True, id="learning rate and seed"),
        pytest.param({"priority": 3}, True, id="priority"),
        pytest.param({"batchSize": 64}, False, id="batch size"),
        pytest.param({"precision": "float32"}, False, id="precision"),
        pytest.param({"hyperparameters": {"optimizer": "adam"}}, False, id="optimizer"),
        pytest.param({"model": {"name": "cnn", "options": {"width": 8}}}, False, id="options"),
        pytest.param({"dataset": {"uri": "mock://cifar10"}}, False, id="data"),
        pytest.param({"resources": {"gpus": 0}}, False, id="resources"),
    ],
)
def test_a_workload_is_what_speed_and_memory_depend_on(changed: dict[str, object], same: bool) -> None:
    spec: dict[str, object] = {"model": {"name": "cnn"}, "dataset": {"uri": "builtin://digits"}}
    one, other = (TrainingJobSpec.model_validate(each) for each in (spec, spec | changed))
    assert (workload_of(one) == workload_of(other)) is same


@pytest.mark.parametrize("field", ["samplesPerSecond", "elapsedSeconds", "step"])
def test_a_job_that_did_not_report_its_speed_has_shown_nothing(field: str) -> None:
    job = succeeded(gpus=1)
    execution = job.status.execution
    assert execution is not None
    wire = execution.wire()
    wire["progress"] = {**wire["progress"], field: {"samplesPerSecond": "nan", "elapsedSeconds": 0, "step": 0}[field]}  # pyright: ignore[reportGeneralTypeIssues]  # JSON
    shown = measured_by(
        job.with_status(job.status.model_copy(update={"execution": type(execution).model_validate(wire)}))
    )
    if field == "elapsedSeconds":  # the rate tells enough
        assert shown is not None
        assert float(shown.seconds_per_step) == pytest.approx(32 / 400)
    else:
        assert shown is None
