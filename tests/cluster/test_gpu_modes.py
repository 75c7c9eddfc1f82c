"""A GPU is never given out twice: jobs and ordinary pods compete for one on a real kubelet, in both orders."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from cyxwiz_devcluster.machine import Machine
from cyxwiz_platform.platform import NAMESPACE
from tests.cluster.gpu_pods import (
    mode_of,
    pod,
    reservations,
    reserved,
    running,
    unschedulable,
    wait_without_reservations,
)
from tests.cluster.installation import GPU, Installation, say
from tests.thread import attempt, digits, endless, finished, is_online, phase, status_of, stepping

NODE = "machine"
TEAM = "team"
Object = dict[str, Any]


@pytest.fixture(scope="module")
def release(machine: Machine) -> Iterator[Installation]:
    """The chart in mode reserve, on a machine whose kubelet has one GPU to give."""
    release = Installation(machine, gpus=1)
    release.offer_gpus(NODE, 1)
    release.kubectl("create", "namespace", TEAM)
    reserve = ["nodes.gpu.mode=reserve", "nodes.gpu.reservation.image=localhost/pause:1"]
    reserve += ["nodes.gpu.reservation.waitSeconds=120"]
    say(release.install(*reserve))
    release.wait_for("cn", NODE, is_online, what="online")
    yield release
    release.uninstall()


def end(release: Installation, name: str) -> None:
    """The job has ended, and holds no GPU. One that is deleted as it trains holds it for half a minute more."""
    release.cancel(name)
    release.wait_for("tj", name, finished, what="cancelled")
    wait_without_reservations(release, within_s=120)


def test_a_job_holds_its_gpu_for_kubernetes_and_gives_it_back_at_once(release: Installation) -> None:
    release.apply(digits("whole", gpus=1))
    done = release.wait_for("tj", "whole", finished, what="finished")
    assert status_of(done)["phase"] == "Succeeded", status_of(done)
    assert reserved(done) == release.simulated.uuids
    ended = time.monotonic()
    wait_without_reservations(release, within_s=30)  # half of what the pod would hold it for by itself
    say(f"mode reserve: {status_of(done)['summary']} GPU given back after {time.monotonic() - ended:.1f} s")


def test_a_pod_waits_while_a_job_has_the_gpu(release: Installation) -> None:
    release.apply(endless("first", resources={"gpus": 1, "cpus": 1, "memory": "512Mi"}))
    job = release.wait_for("tj", "first", stepping, what="training")
    name = status_of(job)["assignment"]["reservation"]
    say(release.kubectl("get", "pods", "-o", "wide"))
    owner = release.get("pod", name)["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["name"]) == ("TrainingJob", "first")
    release.apply(pod("late"))
    release.wait_for("pod", "late", unschedulable, what="told that there is no GPU")
    assert not running(release.get("pod", "late"))
    release.cancel("first")
    release.wait_for("pod", "late", running, what="running once the job has gone")
    assert finished(release.get("tj", "first"))
    release.kubectl("delete", "pod", "late", "--now")


def test_a_job_waits_in_words_while_a_pod_has_the_gpu(release: Installation) -> None:
    release.apply(pod("early"))
    release.wait_for("pod", "early", running, what="running")
    release.apply(digits("patient", gpus=1))
    waiting = release.wait_for(
        "tj", "patient", lambda job: "Insufficient" in status_of(job).get("summary", ""), what="told to wait"
    )
    say(f"job that waits for a pod: {status_of(waiting)['reason']}: {status_of(waiting)['summary']}")
    assert status_of(waiting)["reason"] == "WaitingForReservation"
    assert "execution" not in status_of(waiting)
    release.kubectl("delete", "pod", "early", "--now")
    done = release.wait_for("tj", "patient", finished, what="finished")
    assert status_of(done)["phase"] == "Succeeded"


def test_a_pod_of_higher_priority_waits_until_the_job_has_saved_and_left(release: Installation) -> None:
    important: Object = {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": "important"},
        "value": 1000,
    }
    release.apply(important)
    release.apply(
        endless("moved", resources={"gpus": 1, "cpus": 1, "memory": "512Mi"}, checkpoint={"everyEpochs": 10_000})
    )
    release.wait_for("tj", "moved", stepping, what="training")
    release.apply(pod("vip", priorityClassName="important"))
    left = release.wait_for("tj", "moved", lambda job: bool(status_of(job).get("history")), what="off its place")
    say(f"preempted by Kubernetes: {status_of(left)['history'][0]}")
    assert status_of(left)["history"][0]["outcome"] == "Preempted"
    assert status_of(left)["restoreFrom"]["step"] > 0
    release.wait_for("pod", "vip", running, what="running")
    release.kubectl("delete", "pod", "vip", "--now")
    again = release.wait_for("tj", "moved", lambda job: stepping(job) and attempt(job) > 1, what="going on")
    resumed = status_of(again)["execution"]["resumed"]
    say(f"went on: {json.dumps(resumed)}")
    end(release, "moved")


def test_a_quota_of_the_namespace_is_the_jobs_reason(release: Installation) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "gpus", "namespace": TEAM},
        "spec": {"hard": {f"requests.{GPU}": "0"}},
    }
    release.apply(quota)
    job = digits("poor", gpus=1)
    job["metadata"]["namespace"] = TEAM
    release.apply(job)
    told = release.wait_for(
        "tj",
        "poor",
        lambda job: "exceeded quota" in status_of(job).get("summary", ""),
        what="told of the quota",
        flags=("-n", TEAM),
    )
    say(f"quota: {status_of(told)['summary']}")
    release.kubectl("delete", "resourcequota", "gpus", "-n", TEAM)
    done = release.wait_for("tj", "poor", finished, what="finished", within_s=180, flags=("-n", TEAM))
    assert status_of(done)["phase"] == "Succeeded"


def test_a_job_that_shares_a_gpu_is_refused_at_once(release: Installation) -> None:
    release.apply(digits("shares", resources={"gpus": 1, "gpuMemory": "4Gi", "cpus": 1, "memory": "512Mi"}))
    ended = release.wait_for("tj", "shares", finished, what="refused")
    assert status_of(ended)["reason"] == "UserError"
    assert "Leave gpuMemory out" in status_of(ended)["summary"]


def test_a_restart_of_the_operator_neither_leaks_nor_doubles_pods(release: Installation) -> None:
    release.apply(endless("steady", resources={"gpus": 1, "cpus": 1, "memory": "512Mi"}))
    before = release.wait_for("tj", "steady", stepping, what="training")
    pods = reservations(release)
    assert len(pods) == 1
    uid = release.get("pod", status_of(before)["assignment"]["reservation"])["metadata"]["uid"]
    release.system("scale", "deployment/cyxwiz-operator", "--replicas=0")
    release.system("wait", "--for=delete", "pod", "-l", "app.kubernetes.io/component=operator", "--timeout=60s")
    # Nobody is there to see it: its pod has to go all the same once it is over, by whoever comes next.
    release.apply(digits("orphan", gpus=1))
    release.system("scale", "deployment/cyxwiz-operator", "--replicas=1")
    release.system("rollout", "status", "deployment/cyxwiz-operator", "--timeout=120s", timeout=130)
    assert reservations(release) == pods
    assert release.get("pod", status_of(before)["assignment"]["reservation"])["metadata"]["uid"] == uid
    release.cancel("steady")
    done = release.wait_for("tj", "orphan", finished, what="finished")
    assert status_of(done)["phase"] == "Succeeded"
    wait_without_reservations(release)


def test_a_deleted_reservation_makes_the_job_leave_and_go_on(release: Installation) -> None:
    release.apply(endless("evicted", resources={"gpus": 1, "cpus": 1, "memory": "512Mi"}))
    job = release.wait_for("tj", "evicted", stepping, what="training")
    release.kubectl("delete", "pod", status_of(job)["assignment"]["reservation"], "--wait=false")
    again = release.wait_for("tj", "evicted", lambda job: stepping(job) and attempt(job) > 1, what="going on")
    assert status_of(again)["history"][0]["outcome"] == "Evicted"
    end(release, "evicted")


def test_another_gpu_mode_comes_with_the_machines_next_pod_and_ends_no_job(release: Installation) -> None:
    """What runs or starts on the machine until then is of the mode that its agent has."""
    release.apply(endless("before", resources={"gpus": 1, "cpus": 1, "memory": "512Mi"}))
    before = release.wait_for("tj", "before", stepping, what="training")
    step = status_of(before)["execution"]["progress"]["step"]
    release.upgrade("nodes.gpu.mode=dedicated,nodes.gpu.reservation.keep=true")
    after = release.wait_for(
        "tj", "before", lambda job: status_of(job)["execution"]["progress"]["step"] > step, what="training on"
    )
    assert status_of(after)["assignment"] == status_of(before)["assignment"]
    end(release, "before")
    release.apply(digits("between", gpus=1))
    done = release.wait_for("tj", "between", finished, what="finished")
    assert "reservation" in status_of(done)["assignment"]
    wait_without_reservations(release, within_s=120)

    release.replace_pod()
    release.wait_for("cn", NODE, lambda node: mode_of(node) == "dedicated" and is_online(node), what="of the new mode")
    release.apply(digits("after", gpus=1))
    done = release.wait_for("tj", "after", finished, what="finished")
    assert (status_of(done)["phase"], "reservation" in status_of(done)["assignment"]) == ("Succeeded", False)
    release.upgrade("nodes.gpu.reservation.keep=false")
    assert "cyxwiz-reservations" not in release.kubectl("get", "clusterrole", "-o", "name")


def test_in_mode_dedicated_a_foreign_pod_keeps_jobs_away_and_is_named(release: Installation) -> None:
    release.apply(pod("foreign"))
    release.wait_for("pod", "foreign", running, what="running")
    seen = release.wait_for("cn", NODE, lambda node: _gpu(node)["health"] == "InUse", what="seen in use")
    assert "pod default/foreign" in _gpu(seen)["healthReason"]
    told = release.wait_for("cn", NODE, lambda node: _exclusive(node) == "False", what="told in a condition")
    say(f"foreign use: {next(c for c in status_of(told)['conditions'] if c['type'] == 'GPUsExclusive')['message']}")
    release.apply(digits("kept-away", gpus=1))
    release.wait_for("tj", "kept-away", phase("Queued"), what="queued")
    release.kubectl("delete", "pod", "foreign", "--now")
    done = release.wait_for("tj", "kept-away", finished, what="finished once the pod has gone")
    assert status_of(done)["phase"] == "Succeeded"
    assert "reservation" not in status_of(done)["assignment"]
    release.wait_for("cn", NODE, lambda node: _exclusive(node) == "True", what="told that it is over")


def test_processes_that_are_not_the_runners_keep_jobs_away(release: Installation) -> None:
    release.simulated.change(0, processes=3)
    seen = release.wait_for("cn", NODE, lambda node: _gpu(node)["health"] == "InUse", what="seen in use", within_s=150)
    assert "not CyxWiz's" in _gpu(seen)["healthReason"]
    release.simulated.change(0, processes=0)
    release.wait_for("cn", NODE, lambda node: _gpu(node)["health"] != "InUse", what="free again", within_s=90)


def _gpu(node: Object) -> Object:
    return status_of(node)["inventory"]["gpus"][0]


def _exclusive(node: Object) -> str | None:
    conditions = status_of(node).get("conditions", [])
    return next((each["status"] for each in conditions if each["type"] == "GPUsExclusive"), None)


def test_uninstall_leaves_nothing_of_the_reservations(release: Installation) -> None:
    release.uninstall()
    wait_without_reservations(release)
    kinds = "clusterrole,clusterrolebinding,priorityclass,validatingadmissionpolicy"
    assert "cyxwiz" not in release.kubectl("get", kinds, "-o", "name")
    assert not release.get("namespace", NAMESPACE)
