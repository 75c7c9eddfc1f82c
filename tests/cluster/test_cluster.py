"""From `helm install` to `helm uninstall` on a real kubelet, in this order: each test leaves the release as it was."""

from __future__ import annotations

import json
import subprocess
import time
from typing import Any

from cyxwiz_platform import demo
from cyxwiz_platform.platform import CHART, NAMESPACE
from tests.cluster.installation import GPUS, PROBE, Installation, say, seen_by_probe
from tests.thread import attempt, digits, endless, finished, is_online, phase, status_of, stepping

NODE = "machine"
Object = dict[str, Any]


def progress(job: Object) -> Object:
    return status_of(job).get("execution", {}).get("progress") or {}


def remove(installation: Installation, *names: str) -> None:
    installation.kubectl("delete", "trainingjob", *names, "--ignore-not-found", "--timeout=60s")


def test_the_first_job_after_helm_install(installation: Installation) -> None:
    """Watched by `kubectl get tj -w`; the time since the install is printed."""
    began = time.monotonic()
    watch = subprocess.Popen(
        [str(installation.machine.kubectl), "--kubeconfig", str(installation.machine.kubeconfig), "get", "tj", "-w"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        installation.apply(digits("first"))
        job = installation.wait_for("tj", "first", finished, what="finished", within_s=300)
    finally:
        watch.terminate()
        shown, _ = watch.communicate()
    ended = time.monotonic()
    say(
        f"from apply to finished: {ended - began:.1f} s, from helm install: {ended - installation.began:.1f} s\n{shown}"
    )
    assert status_of(job)["phase"] == "Succeeded", status_of(job)
    assert float(progress(job)["validationAccuracy"]) > 0.9
    assert "Running" in shown
    say(installation.kubectl("get", "pods", "-A", "-o", "wide"))
    say(installation.system("describe", "daemonset", "cyxwiz-node"))


def test_the_jobs_of_the_demo(installation: Installation) -> None:
    """Two that train, one that waits for both CPUs, one that no machine can run."""
    *trained, impossible = demo.jobs()
    impossible["spec"]["resources"]["gpus"] = 2 * GPUS  # which divides its batch
    for job in (*trained, impossible):
        installation.apply(job)
    for job in trained:
        done = installation.wait_for("tj", job["metadata"]["name"], finished, what="finished", within_s=300)
        assert status_of(done)["phase"] == "Succeeded", status_of(done)
    waiting = installation.get("tj", demo.IMPOSSIBLE)
    assert status_of(waiting)["reason"] == "NoNodeFits"
    say(installation.kubectl("get", "tj"))
    remove(installation, demo.IMPOSSIBLE, *(job["metadata"]["name"] for job in trained))


def test_helm_test_trains_a_job(installation: Installation) -> None:
    said = installation.helm("test", "cyxwiz", "--logs")
    say(said)
    assert "Succeeded" in said


def test_kubectl_logs_shows_what_became_of_the_job(installation: Installation) -> None:
    said = installation.system("logs", installation.node_pod(), "-c", "runner")
    assert "job running key=default/first" in said
    assert "job reaped key=default/first" in said


def test_kubectl_exec_reaches_both_containers(installation: Installation) -> None:
    for container in ("agent", "runner"):
        command = ["exec", installation.node_pod(), "-c", container, "--", "/opt/cyxwiz/bin/python", "-c", "print(6*7)"]
        assert installation.system(*command).strip() == "42"


def test_the_node_shows_its_simulated_gpus(installation: Installation) -> None:
    node = installation.wait_for("cn", NODE, is_online, what="online")
    gpus = node["status"]["inventory"]["gpus"]
    assert [gpu["uuid"] for gpu in gpus] == installation.simulated.uuids
    assert len(gpus) == GPUS
    say(installation.kubectl("get", "cn", "-o", "wide"))


def test_a_job_runs_on_two_of_the_simulated_gpus(installation: Installation) -> None:
    installation.apply(digits("pair", gpus=2))
    done = installation.wait_for("tj", "pair", finished, what="finished")
    assert status_of(done)["phase"] == "Succeeded", status_of(done)
    assert status_of(done)["execution"]["device"].endswith("in place of 2 simulated GPUs")


def test_a_job_finds_no_token(installation: Installation) -> None:
    """A job with hostile code looks everywhere; the same search in the agent's container finds the token."""
    seen = seen_by_probe(installation, "thief")
    say(f"the job saw {seen}")
    assert 700_000 <= seen["uid"] <= 700_999
    assert seen["tried"] > 0
    assert seen["secrets"] == []
    assert seen["sockets"] == []

    script = installation.system("exec", installation.node_pod(), "-c", "runner", "--", "cat", PROBE)
    command = ["exec", "-i", installation.node_pod(), "-c", "agent", "--", "/opt/cyxwiz/bin/python", "-"]
    found = json.loads(installation.system(*command, input=script))
    assert "/var/run/secrets/kubernetes.io/serviceaccount/token" in " ".join(found["secrets"])


def test_a_cordoned_node_takes_no_job(installation: Installation) -> None:
    installation.kubectl("cordon", NODE)
    try:
        installation.wait_for("cn", NODE, phase("Unschedulable"), what="unschedulable", within_s=90)
        installation.apply(digits("patient"))
        waiting = installation.wait_for(
            "tj", "patient", lambda job: "unschedulable" in status_of(job).get("summary", ""), what="told to wait"
        )
        assert not status_of(waiting).get("assignment")
    finally:
        installation.kubectl("uncordon", NODE)
    done = installation.wait_for("tj", "patient", finished, what="finished", within_s=180)
    assert status_of(done)["phase"] == "Succeeded"


def test_a_drained_node_lets_its_job_go_on_from_the_middle_of_an_epoch(installation: Installation) -> None:
    """`kubectl drain` passes over the pods of a DaemonSet; the ComputeNode's `drain` asks for a checkpoint."""
    installation.apply(endless("moved", checkpoint={"everyEpochs": 10_000}))
    before = installation.wait_for("tj", "moved", stepping, what="training")
    assert progress(before)["step"] > 0
    installation.kubectl("drain", NODE, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=60s")
    installation.kubectl("patch", "computenode", NODE, "--type=merge", "--patch", '{"spec": {"drain": true}}')
    try:
        left = installation.wait_for(
            "tj", "moved", lambda job: not status_of(job).get("assignment"), what="let go", within_s=120
        )
        restore = status_of(left)["restoreFrom"]
    finally:
        installation.kubectl("patch", "computenode", NODE, "--type=merge", "--patch", '{"spec": {"drain": false}}')
        installation.kubectl("uncordon", NODE)
    after = installation.wait_for(
        "tj",
        "moved",
        lambda job: attempt(job) > attempt(before) and progress(job).get("step", 0) > restore["step"],
        what="resumed",
        within_s=180,
    )
    resumed = status_of(after)["execution"]["resumed"]
    steps = status_of(before)["execution"]["data"]["trainSamples"] // before["spec"]["batchSize"]
    say(f"drained at step {restore['step']}, {restore['step'] % steps} of {steps} into its epoch; resumed: {resumed}")
    assert restore["step"] >= progress(before)["step"]
    assert (resumed["step"], resumed["verified"]) == (restore["step"], True)
    # The same recorded batch, answered when the checkpoint was saved and by the restored weights.
    assert abs(float(resumed["savedLoss"]) - float(resumed["replayedLoss"])) < 1e-3
    remove(installation, "moved")


def test_a_job_outlives_its_operator(installation: Installation) -> None:
    installation.apply(endless("steady"))
    before = installation.wait_for("tj", "steady", stepping, what="training")
    operator = installation.system("get", "pods", "-l", "app.kubernetes.io/component=operator", "-o", "name").strip()
    installation.system("delete", operator, "--grace-period=0", "--force")
    installation.system("rollout", "status", "deployment/cyxwiz-operator", "--timeout=120s", timeout=130)
    after = installation.wait_for(
        "tj", "steady", lambda job: progress(job).get("step", 0) > progress(before)["step"], what="further"
    )
    assert attempt(after) == attempt(before)


def test_a_job_outlives_an_upgrade_and_a_rollback(installation: Installation) -> None:
    before = installation.wait_for("tj", "steady", stepping, what="training")
    pod = installation.get("pod", installation.node_pod().removeprefix("pod/"), "-n", NAMESPACE)["metadata"]["uid"]
    flags = ["--reset-then-reuse-values", "--set", "operator.logLevel=DEBUG,agent.resources.requests.cpu=50m"]
    installation.helm("upgrade", "cyxwiz", str(CHART), *flags)
    installation.system("rollout", "status", "deployment/cyxwiz-operator", "--timeout=120s", timeout=130)
    args = installation.get("deployment", "cyxwiz-operator", "-n", NAMESPACE)
    assert "--log-level=DEBUG" in args["spec"]["template"]["spec"]["containers"][0]["args"]
    installation.helm("rollback", "cyxwiz")
    installation.system("rollout", "status", "deployment/cyxwiz-operator", "--timeout=120s", timeout=130)
    args = installation.get("deployment", "cyxwiz-operator", "-n", NAMESPACE)
    assert "--log-level=INFO" in args["spec"]["template"]["spec"]["containers"][0]["args"]
    after = installation.wait_for(
        "tj", "steady", lambda job: progress(job).get("step", 0) > progress(before)["step"], what="further"
    )
    assert attempt(after) == attempt(before)
    now = installation.get("pod", installation.node_pod().removeprefix("pod/"), "-n", NAMESPACE)
    assert now["metadata"]["uid"] == pod


def test_a_job_goes_on_after_its_nodes_pod_was_deleted(installation: Installation) -> None:
    before = installation.wait_for("tj", "steady", stepping, what="training")
    installation.replace_pod()
    after = installation.wait_for(
        "tj",
        "steady",
        lambda job: attempt(job) > attempt(before) and progress(job).get("step", 0) > progress(before)["step"],
        what="resumed",
        within_s=240,
    )
    say(f"before: step {progress(before)['step']}, after: step {progress(after)['step']}, attempt {attempt(after)}")


def test_uninstall_leaves_jobs_and_nothing_stuck(installation: Installation) -> None:
    installation.helm("uninstall", "cyxwiz", "--wait", "--timeout", "3m")
    names = installation.kubectl("get", "tj", "-o", "name").split()
    assert {"trainingjob.cyxwiz.io/first", "trainingjob.cyxwiz.io/steady"} <= set(names)
    installation.system("wait", "--for=delete", "pod", "--all", "--timeout=120s", timeout=130)
    left = installation.system("get", "pods,deployments,daemonsets,services", "-o", "name")
    assert left.strip() == "", left
    remove(installation, *(name.partition("/")[2] for name in names))
    installation.kubectl("delete", "namespace", NAMESPACE, "--timeout=120s", timeout=130)
    installation.kubectl("delete", "crd", "trainingjobs.cyxwiz.io", "computenodes.cyxwiz.io", "--timeout=60s")
    assert "cyxwiz" not in installation.kubectl("get", "crd,clusterrole,priorityclass,flowschema", "-o", "name")
