"""Two kubelets: jobs spread, move with a drain, and are taken over from a node that is lost; agents keep to their own.

In this order: each test begins with what the one before has left.
"""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from cyxwiz_devcluster.machine import FIRST_NODE
from cyxwiz_platform.platform import NAMESPACE
from tests.cluster.conftest import SECOND_NODE
from tests.cluster.gpu_pods import mode_of, pod, reserved, running, unschedulable, wait_without_reservations
from tests.cluster.installation import Installation, say
from tests.thread import attempt, endless, is_online, phase, status_of, stepping, trainers_of, wait_frozen, wait_gone

# Two of them do not fit on one node.
LARGE = {"gpus": 0, "cpus": 1, "memory": "2Gi"}
Object = dict[str, Any]


def node_of(job: Object) -> str | None:
    return (status_of(job).get("assignment") or {}).get("node")


def training_on(node: str) -> Any:
    return lambda job: node_of(job) == node and stepping(job)


def ask(pair: Installation, node: str, method: str, path: str, body: Object | None = None) -> tuple[int, Object]:
    """Status and body of what the API server answers to the token of that node's agent."""
    script = f"""
import json, ssl, urllib.error, urllib.request
folder = "/var/run/secrets/kubernetes.io/serviceaccount/"
tls = ssl.create_default_context(cafile=folder + "ca.crt")
kind = "application/merge-patch+json" if {method!r} == "PATCH" else "application/json"
headers = {{"Authorization": "Bearer " + open(folder + "token").read(), "Content-Type": kind}}
request = urllib.request.Request(
    "https://10.96.0.1" + {path!r}, method={method!r}, data=json.dumps({body!r}).encode(), headers=headers
)
try:
    with urllib.request.urlopen(request, context=tls, timeout=30) as answer:
        print(json.dumps([answer.status, json.load(answer)]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, json.load(error)]))
"""
    command = ["exec", "-i", pair.node_pod(node), "-c", "agent", "--", "/opt/cyxwiz/bin/python", "-"]
    status, answer = json.loads(pair.system(*command, input=script))
    return status, answer


def rewritten(pair: Installation, node: str, path: str) -> tuple[int, Object]:
    """What the API server answers when that node's agent writes the object as it is; its owner may write meanwhile."""
    deadline = time.monotonic() + 60
    while True:
        _, present = ask(pair, node, "GET", path)
        status, answer = ask(pair, node, "PUT", f"{path}?dryRun=All", present)
        if status != 409 or time.monotonic() > deadline:
            return status, answer


def test_both_nodes_are_online_with_gpus_of_their_own(pair: Installation) -> None:
    seen = {name: pair.wait_for("cn", name, is_online, what="online") for name in (FIRST_NODE, SECOND_NODE)}
    for name, node in seen.items():
        uuids = [gpu["uuid"] for gpu in node["status"]["inventory"]["gpus"]]
        assert uuids == pair.simulated_on[name].uuids
    assert not set(pair.simulated_on[FIRST_NODE].uuids) & set(pair.simulated_on[SECOND_NODE].uuids)
    say(pair.kubectl("get", "nodes,cn", "-o", "wide"))
    say(pair.kubectl("get", "pods", "-A", "-o", "wide"))


@pytest.mark.parametrize(("mine", "other"), [(FIRST_NODE, SECOND_NODE), (SECOND_NODE, FIRST_NODE)])
def test_an_agent_writes_its_own_nodes_objects_and_not_the_others(pair: Installation, mine: str, other: str) -> None:
    inventory = {"status": {"inventory": {"cpus": 64}}}
    leases = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
    for node, word in ((mine, None), (other, "an agent writes the ComputeNode of its own node only")):
        path = f"/apis/cyxwiz.io/v1alpha1/computenodes/{node}/status?dryRun=All"
        status, answer = ask(pair, mine, "PATCH", path, inventory)
        say(f"{mine} about ComputeNode {node}: {status} {answer.get('message', '')}")
        assert (status == 200) if word is None else (status == 422 and word in answer["message"]), answer
        status, answer = rewritten(pair, mine, f"{leases}/{node}")
        say(f"{mine} about Lease {node}: {status} {answer.get('message', '')}")
        assert status == (200 if word is None else 422), answer


def test_two_jobs_spread_over_two_nodes(pair: Installation) -> None:
    for name in ("left", "right"):
        pair.apply(endless(name, resources=LARGE))
    jobs = [pair.wait_for("tj", name, stepping, what="training") for name in ("left", "right")]
    assert {node_of(job) for job in jobs} == {FIRST_NODE, SECOND_NODE}
    say(pair.kubectl("get", "tj", "-o", "wide"))
    stays = next(job for job in jobs if node_of(job) == FIRST_NODE)["metadata"]["name"]
    pair.kubectl("delete", "tj", stays, "--timeout=60s")


def the_job(pair: Installation) -> Object:
    """The one that the test before has left."""
    (name,) = pair.kubectl("get", "tj", "-o", "name").split()
    return pair.get("tj", name.partition("/")[2])


def drain(pair: Installation, node: str) -> None:
    """As an administrator does; the operator stays, which has no other node to go to."""
    flags = ("--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=60s")
    pair.kubectl("drain", node, *flags, "--pod-selector", "app.kubernetes.io/component!=operator", timeout=70)


def drained(pair: Installation, name: str, source: str, target: str) -> Object:
    """The job as it trains on `target`, after `kubectl drain` of `source`."""
    was = pair.wait_for("tj", name, training_on(source), what=f"training on {source}")
    began = time.monotonic()
    drain(pair, source)
    try:
        moved = pair.wait_for("tj", name, training_on(target), what=f"moved to {target}", within_s=180)
    finally:
        pair.kubectl("uncordon", source)
    say(f"{source} drained, training on {target} after {time.monotonic() - began:.1f} s: {status_of(moved)['summary']}")
    say(json.dumps(status_of(moved)["history"][-1]))
    assert attempt(moved) == attempt(was) + 1
    pair.wait_for("cn", source, phase("Online"), what="online again", within_s=90)
    return status_of(moved)


def test_kubectl_drain_moves_a_job_which_says_why_it_starts_anew(pair: Installation) -> None:
    """Its checkpoint lies on the node that it leaves."""
    before = the_job(pair)
    assert node_of(before) == SECOND_NODE
    there = drained(pair, before["metadata"]["name"], SECOND_NODE, FIRST_NODE)
    assert "restoreFrom" not in there["assignment"]
    assert "It started anew: the checkpoint of an earlier attempt is on another node" in there["summary"]


def test_kubectl_drain_lets_a_job_without_another_place_wait_and_go_on_where_its_checkpoint_is(
    pair: Installation,
) -> None:
    # A job of its own: one that moved before may have its furthest checkpoint on the other node.
    name = "home"
    pair.kubectl("delete", "tj", the_job(pair)["metadata"]["name"], "--timeout=60s")
    pair.kubectl("cordon", SECOND_NODE)
    pair.wait_for("cn", SECOND_NODE, lambda node: not is_online(node), what="cordoned", within_s=90)
    pair.apply(endless(name, resources=LARGE))
    pair.wait_for("tj", name, training_on(FIRST_NODE), what=f"training on {FIRST_NODE}")
    drain(pair, FIRST_NODE)
    left = pair.wait_for("tj", name, lambda job: not status_of(job).get("assignment"), what="let go")
    pair.kubectl("uncordon", FIRST_NODE)
    back = status_of(pair.wait_for("tj", name, training_on(FIRST_NODE), what="back", within_s=180))
    pair.kubectl("uncordon", SECOND_NODE)
    pair.wait_for("cn", SECOND_NODE, phase("Online"), what="online again", within_s=90)
    resumed = back["execution"]["resumed"]
    say(f"back where its checkpoint is: {resumed}")
    assert (resumed["step"], resumed["verified"]) == (status_of(left)["restoreFrom"]["step"], True)
    assert abs(float(resumed["savedLoss"]) - float(resumed["replayedLoss"])) < 1e-3


def test_a_job_of_a_lost_node_goes_on_elsewhere_and_never_twice(pair: Installation) -> None:
    """The node is cut off and runs on: its trainer stands still before the other node's begins."""
    name = the_job(pair)["metadata"]["name"]
    assignment = drained(pair, name, FIRST_NODE, SECOND_NODE)["assignment"]
    assert trainers_of(assignment["id"])
    began = time.monotonic()
    pair.machine.disconnect(SECOND_NODE)
    try:
        pair.wait_for("tj", name, lambda job: node_of(job) == FIRST_NODE, what="bound to the other node", within_s=180)
        wait_frozen(assignment["id"], within_s=0)
        taken = pair.wait_for("tj", name, training_on(FIRST_NODE), what="training there", within_s=120)
        wait_frozen(assignment["id"], within_s=0)
        say(f"taken over from a lost node after {time.monotonic() - began:.1f} s: {status_of(taken)['summary']}")
        say(json.dumps(status_of(taken)["history"]))
        say(pair.kubectl("get", "nodes,cn"))
    finally:
        pair.machine.connect(SECOND_NODE)
    wait_gone(assignment["id"], within_s=120)
    pair.wait_for("cn", SECOND_NODE, phase("Online"), what="online again", within_s=180)
    after = pair.wait_for("tj", name, stepping, what="training")
    assert (node_of(after), attempt(after)) == (FIRST_NODE, attempt(taken))
    pair.machine.wait_ready(SECOND_NODE, time.monotonic() + 180)
    pair.kubectl("delete", "tj", name, "--timeout=60s")


def test_a_job_has_the_gpu_that_kubernetes_gave_on_its_own_node_and_no_pod_beside_it(pair: Installation) -> None:
    """Mode reserve, one GPU to give on each node."""
    pair.upgrade("nodes.gpu.mode=reserve,nodes.gpu.reservation.image=localhost/pause:1")
    for node in pair.machine.nodes:
        pair.offer_gpus(node, 1)
        pair.replace_pod(node)
    for node in pair.machine.nodes:
        pair.wait_for("cn", node, lambda seen: mode_of(seen) == "reserve" and is_online(seen), what="in mode reserve")
    for name in ("one", "two"):
        pair.apply(endless(name, resources=LARGE | {"gpus": 1}))
    jobs = {name: pair.wait_for("tj", name, stepping, what="training") for name in ("one", "two")}
    say(pair.kubectl("get", "tj,pods", "-o", "wide"))
    assert {node_of(job) for job in jobs.values()} == set(pair.machine.nodes)
    for job in jobs.values():
        assignment = status_of(job)["assignment"]
        assert reserved(job) == pair.simulated_on[assignment["node"]].uuids[:1]
        holder = pair.get("pod", assignment["reservation"])
        assert holder["spec"]["nodeName"] == assignment["node"]
    pair.apply(pod("late"))
    pair.wait_for("pod", "late", unschedulable, what="told that there is no GPU")
    pair.cancel("one")
    late = pair.wait_for("pod", "late", running, what="running where the job has gone")
    assert late["spec"]["nodeName"] == node_of(jobs["one"])
    assert stepping(pair.get("tj", "two"))
    pair.kubectl("delete", "pod", "late", "--now")
    pair.kubectl("delete", "tj", "one", "two", "--timeout=60s")
    wait_without_reservations(pair, within_s=120)
