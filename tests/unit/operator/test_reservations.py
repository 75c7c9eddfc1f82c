"""GPUs reserved through Kubernetes: the pod that is asked for, what follows from what it says, and who keeps count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cyxwiz_crds import TrainingJob
from cyxwiz_kube import Conflict, Forbidden, Unavailable
from cyxwiz_operator.decisions import decide
from cyxwiz_operator.lifecycle import backing_off_nodes, cannot_reserve, review, review_reservation
from cyxwiz_operator.reservation_pods import Reservation, ReservationSettings, parse_pod, pod_body
from cyxwiz_operator.reserving import Reservations
from cyxwiz_operator.views import JobView, Liveness

from .builders import NOW, ago, gpu_uuid, later, make_bound_job, make_job, make_node, make_snapshot, make_table

SETTINGS = ReservationSettings.model_validate({"resourceName": "nvidia.com/gpu", "image": "pause:1"})
WAIT_S = 60.0
RUNNING = {"state": "Running"}
CHECKPOINT = {"step": 40, "epoch": 2, "digest": "sha256:0", "uri": "node://node-a/x/y"}


def reserving(name: str = "digits", **job: Any) -> JobView:
    """A job bound with a reservation."""
    name_of_pod = {"reservation": f"cyxwiz-uid-team-a-{name}-1"}
    return make_bound_job(name, gpu_uuids=[gpu_uuid("node-a", 0)], gpus=1, assignment=name_of_pod, **job)


def assignment_of(job: JobView) -> str:
    assert job.status.assignment is not None
    return job.status.assignment.id


def make_pod(job: JobView, *, leaving: bool = False, **status: Any) -> dict[str, Any]:
    """The job's pod as the API server shows it."""
    assert job.status.assignment is not None
    body = pod_body(job, job.status.assignment, SETTINGS)
    metadata = body["metadata"] | {"uid": f"pod-{job.uid}"}
    return body | {"metadata": metadata | ({"deletionTimestamp": ago(0)} if leaving else {}), "status": status}


def condition(kind: str, reason: str, message: str, status: str = "True") -> dict[str, Any]:
    return {"conditions": [{"type": kind, "status": status, "reason": reason, "message": message}]}


def after(job: JobView, pod: Reservation | None, **options: Any) -> Any:
    return review_reservation(job, pod, Liveness.ONLINE, options.pop("now", NOW), WAIT_S)


@pytest.mark.parametrize(
    ("mode", "can_reserve", "pod"),
    [
        ("reserve", True, "cyxwiz-uid-team-a-gpu-1"),
        ("dedicated", True, None),  # the chart's mode was changed, and the machine's pod not replaced yet
        ("dedicated", False, None),
        ("unguarded", True, None),
    ],
)
def test_a_bind_is_of_the_mode_that_the_nodes_agent_has(mode: str, can_reserve: bool, pod: str | None) -> None:
    jobs = [make_job("cpu"), make_job("gpu", gpus=1)]
    snapshot = make_snapshot(jobs, [make_node(gpus=1, gpu_mode=mode)], can_reserve=can_reserve)
    binds = decide(snapshot, most_binds=9, reservation_wait_s=WAIT_S if can_reserve else None).binds
    found = {change.job.uid: change.status.assignment for change in binds}
    named = {uid: assignment and assignment.reservation for uid, assignment in found.items()}
    assert named == {"uid-team-a-cpu": None, "uid-team-a-gpu": pod}


def test_an_operator_that_cannot_reserve_leaves_gpus_of_mode_reserve_alone_and_says_why() -> None:
    jobs = [make_job("cpu"), make_job("gpu", gpus=1)]
    found = decide(make_snapshot(jobs, [make_node(gpus=1, gpu_mode="reserve")]), most_binds=9)
    assert [change.job.uid for change in found.binds] == ["uid-team-a-cpu"]
    (told,) = found.changes
    assert "another GPU mode" in (told.status.summary or "")
    assert "when its pod is replaced" in (told.status.summary or "")


@pytest.mark.parametrize("can_reserve", [True, False])
def test_a_job_that_shares_a_gpu_goes_to_a_machine_that_is_of_another_mode_already(can_reserve: bool) -> None:
    nodes = [make_node("node-a", gpus=1, gpu_mode="reserve"), make_node("node-b", gpus=1, gpu_mode="dedicated")]
    snapshot = make_snapshot([make_job(gpus=1, gpu_memory="4Gi")], nodes, can_reserve=can_reserve)
    (bind,) = decide(snapshot, most_binds=9, reservation_wait_s=WAIT_S if can_reserve else None).binds
    assert bind.status.assignment is not None
    assert (bind.status.assignment.node, bind.status.assignment.reservation) == ("node-b", None)


@pytest.mark.parametrize("mode", ["dedicated", "reserve", None])
def test_a_job_that_trains_is_left_alone_whatever_the_mode_of_its_node_has_become(mode: str | None) -> None:
    for job in (reserving(execution=RUNNING), make_bound_job("plain", gpus=1, execution=RUNNING)):
        found = decide(make_snapshot([job], [make_node(gpus=1, gpu_mode=mode)]), most_binds=9)
        assert (found.binds, found.changes) == ((), ())


def test_the_pod_is_the_jobs_asks_for_its_gpus_on_its_node_and_can_do_nothing() -> None:
    job = reserving()
    assert job.status.assignment is not None
    body = pod_body(job, job.status.assignment, SETTINGS)
    (container,) = body["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "nodeName" not in body["spec"]
    terms = body["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert terms["nodeSelectorTerms"][0]["matchFields"][0]["values"] == ["node-a"]
    assert body["metadata"]["namespace"] == "team-a"
    assert body["metadata"]["ownerReferences"][0]["uid"] == job.uid
    assert body["spec"]["automountServiceAccountToken"] is False


def test_a_job_waits_for_its_reservation_in_kubernetes_words_and_says_it_once() -> None:
    assert after(reserving(), None) is None
    job = reserving(bound_s_ago=3)
    said = condition(
        "PodScheduled", "Unschedulable", "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.", "False"
    )
    change = after(job, parse_pod(make_pod(job, **said)))
    assert change.status.reason == "WaitingForReservation"
    assert "Insufficient nvidia.com/gpu" in change.status.summary
    assert after(change.after, parse_pod(make_pod(job, **said))) is None


def test_a_job_that_waits_for_its_reservation_is_not_taken_for_unclaimed() -> None:
    job = reserving(bound_s_ago=30)
    assert review(job, Liveness.ONLINE, NOW) is None
    containers = [{"state": {"running": {"startedAt": ago(20)}}}]
    change = after(job, parse_pod(make_pod(job, containerStatuses=containers)))
    assert change.outcome == "NeverClaimed"


def test_a_job_gives_its_place_up_after_the_wait_and_tries_the_same_node_again_soon() -> None:
    change = after(reserving(bound_s_ago=61), None)
    assert (change.status.assignment, change.status.history[-1].outcome) == (None, "NotReserved")
    record = change.status.history[-1]
    job = make_job(status={"history": [record.model_copy(update={"attempt": n}).wire() for n in range(1, 9)]})
    assert backing_off_nodes(job, later(29).wall) == {"node-a"}
    assert backing_off_nodes(job, later(31).wall) == frozenset()


def test_a_refused_pod_is_told_in_the_api_servers_words_and_tried_again_later() -> None:
    job = reserving()
    said = 'pods "cyxwiz-x" is forbidden: exceeded quota: gpus, requested: 1, used: 4, limited: 4'
    change = after(job, Reservation(assignment_of(job), "team-a", "x", refused=True, message=said))
    assert change.status.reason == "NotReserved"
    assert "exceeded quota" in change.status.summary
    assert change.status.retry_at is not None


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (condition("DisruptionTarget", "PreemptionByScheduler", "preempted by pod a/b"), "Preempted"),
        (condition("DisruptionTarget", "EvictionByEvictionAPI", "evicted"), "Evicted"),
        ({}, "Evicted"),
    ],
)
def test_a_job_whose_pod_goes_is_told_to_save_and_leave(status: dict[str, Any], outcome: str) -> None:
    job = reserving(execution=RUNNING)
    change = after(job, parse_pod(make_pod(job, leaving=True, **status)))
    assert (change.status.assignment.intent, change.status.assignment.reason) == ("Yield", outcome)
    gone = make_bound_job(
        execution={"state": "Yielded", "checkpoint": CHECKPOINT}, assignment=change.status.assignment.wire()
    )
    left = review(gone, Liveness.ONLINE, NOW)
    assert left is not None
    assert (left.outcome, left.status.failures) == (outcome, None)


def test_a_running_job_without_its_pod_leaves_also_when_nobody_saw_it_go() -> None:
    assert after(reserving(execution=RUNNING), None).status.assignment.reason == "Evicted"
    assert after(reserving(execution={"state": "Succeeded"}), None) is None


def test_a_job_that_shares_gpus_is_refused_before_it_waits() -> None:
    change = cannot_reserve(make_job(gpus=1, gpu_memory="4Gi"), NOW)
    assert change is not None
    assert "Leave gpuMemory out" in (change.status.summary or "")
    assert cannot_reserve(make_job(gpus=1), NOW) is None


def test_a_job_is_charged_for_the_gpu_that_kubernetes_gave_it() -> None:
    node = make_node(gpus=2)
    given = [gpu_uuid("node-a", 1)]
    assert make_table(node, jobs=[reserving()]).gpu_jobs.tolist() == [[1, 0]]
    assert make_table(node, jobs=[reserving(execution=RUNNING | {"gpus": given})]).gpu_jobs.tolist() == [[0, 1]]


class FakeApi:
    """Pods by name; what it refuses with."""

    def __init__(self, *finished: JobView) -> None:
        self.pods: dict[str, dict[str, Any]] = {}
        self.deleted: list[tuple[str, int | None]] = []
        self.refusal: Exception | None = None
        self.landed: Callable[[dict[str, Any]], object] = lambda _: None
        """Called before a pod's making is answered, as the watch may be."""
        self.finished = {job.job.metadata.name: job.job for job in finished}

    async def create_pod(self, namespace: str, body: dict[str, Any]) -> dict[str, Any]:
        if self.refusal is not None:
            raise self.refusal
        name = body["metadata"]["name"]
        if name in self.pods:
            raise Conflict(409, "AlreadyExists", name)
        self.pods[name] = body | {"metadata": body["metadata"] | {"uid": f"pod-{name}"}, "status": {}}
        self.landed(self.pods[name])
        return self.pods[name]

    async def delete_pod(self, pod: Reservation, grace_s: int | None) -> None:
        self.deleted.append((pod.name, grace_s))

    async def read_job(self, namespace: str, name: str) -> TrainingJob | None:
        return self.finished.get(name)


async def test_each_assignment_has_one_pod_however_often_it_is_looked_at() -> None:
    api, book, job = FakeApi(), Reservations(SETTINGS), reserving()
    for _ in range(3):
        await book.keep(api, [job], [])
    assert list(api.pods) == ["cyxwiz-uid-team-a-digits-1"]
    # A restart has not seen it yet: the name is taken, and the watch will show it.
    await Reservations(SETTINGS).keep(api, [job], [])
    assert (len(api.pods), api.deleted) == (1, [])


async def test_what_the_watch_said_of_a_pod_before_its_making_was_answered_is_not_forgotten() -> None:
    api, book, job = FakeApi(), Reservations(SETTINGS), reserving()
    refused = condition("PodScheduled", "Unschedulable", "Insufficient GPUs", "False")
    api.landed = lambda pod: book.see(pod | {"status": refused})
    await book.keep(api, [job], [])
    assert book.known[assignment_of(job)].message == "Insufficient GPUs"


async def test_a_pod_that_went_is_not_made_again_for_the_same_assignment() -> None:
    api, book, job = FakeApi(), Reservations(SETTINGS), reserving()
    await book.keep(api, [job], [])
    book.miss(api.pods.popitem()[1])
    await book.keep(api, [job], [])
    assert api.pods == {}
    assert book.known[assignment_of(job)].leaves == "Evicted"


async def test_a_pod_whose_job_has_left_is_deleted_at_once_and_once() -> None:
    api, book, job = FakeApi(), Reservations(SETTINGS), reserving()
    await book.keep(api, [job], [])
    for _ in range(2):
        await book.keep(api, [make_job()], [])
    assert api.deleted == [("cyxwiz-uid-team-a-digits-1", 1)]


async def test_a_pod_of_a_finished_job_is_deleted_at_once_after_a_restart() -> None:
    job = reserving()
    api = FakeApi(reserving(execution={"state": "Succeeded"}, status={"phase": "Succeeded"}))
    book = Reservations(SETTINGS)
    book.see(make_pod(job))
    await book.keep(api, [], [])
    assert api.deleted == [("cyxwiz-uid-team-a-digits-1", 1)]


async def test_the_pod_of_a_deleted_job_keeps_its_gpus_while_the_processes_may_still_save() -> None:
    api, book, job = FakeApi(), Reservations(SETTINGS), reserving()
    book.see(make_pod(job))
    await book.keep(api, [], [])
    assert api.deleted == [("cyxwiz-uid-team-a-digits-1", None)]


async def test_the_pod_of_a_job_that_cannot_be_read_is_left_alone() -> None:
    api, book, job = FakeApi(), Reservations(SETTINGS), reserving()
    book.see(make_pod(job))
    await book.keep(api, [], [job.uid])
    assert api.deleted == []


async def test_a_refusal_is_kept_until_the_job_has_been_told_and_an_outage_is_tried_again() -> None:
    api, book, job = FakeApi(), Reservations(SETTINGS), reserving()
    api.refusal = Unavailable(503, "ServiceUnavailable", "later")
    await book.keep(api, [job], [])
    assert book.known == {}
    api.refusal = Forbidden(403, "Forbidden", "exceeded quota")
    await book.keep(api, [job], [])
    assert book.known[assignment_of(job)].refused
    await book.keep(api, [], [])
    assert book.known == {}
