"""Real control planes. Where the binaries are not in the cache yet, the first test builds them, which takes minutes."""

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cyxwiz_devcluster import (
    Cluster,
    DevclusterError,
    KubectlError,
    find_cluster,
    find_or_build,
    processes,
    start,
    stop,
)
from cyxwiz_devcluster.processes import Record
from cyxwiz_devcluster.pytest_plugin import cluster, namespace

__all__ = ["cluster", "namespace"]  # the fixtures are a part of what is tested

OWN = {name: value for name, value in os.environ.items() if name not in {"CYXWIZ_KUBECONFIG", "CYXWIZ_STATE"}}
OWNER = """
import sys, time
from pathlib import Path
from cyxwiz_devcluster import start
start(Path(sys.argv[1]))
print("ready", flush=True)
time.sleep(600)
"""
POD = """
apiVersion: v1
kind: Pod
metadata: {name: agent}
spec:
  nodeName: node-1
  containers: [{name: agent, image: none}]
"""


def wait_until(condition: Callable[[], object], what: str, within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        time.sleep(0.05)


def record_of(folder: Path) -> Record:
    record = processes.read_record(folder / "processes.json")
    assert record is not None
    assert [process.name for process in record.processes] == ["etcd", "kube-apiserver", "kube-controller-manager"]
    return record


def nothing_runs(record: Record) -> bool:
    return not any(process.is_running() for process in record.everything())


def run_cli(state: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cyxwiz_devcluster", arguments[0], "--state", str(state), *arguments[1:]]
    return subprocess.run(command, env=OWN | environ, capture_output=True, text=True, check=False, timeout=900)


def test_two_clusters_run_side_by_side_and_know_nothing_of_each_other(tmp_path: Path) -> None:
    with start(tmp_path / "one", environ=OWN) as one, start(tmp_path / "two", environ=OWN) as two:
        one.run_kubectl("create", "namespace", "only-in-one")
        assert "namespace/only-in-one" in one.run_kubectl("get", "namespaces", "-o", "name")
        assert "namespace/only-in-one" not in two.run_kubectl("get", "namespaces", "-o", "name")
        assert stat.S_IMODE(one.kubeconfig.stat().st_mode) == 0o600
        records = [record_of(each.state) for each in (one, two)]
    assert all(nothing_runs(record) for record in records)
    assert list(tmp_path.iterdir()) == []


def test_all_ends_when_the_owner_is_killed_and_the_folder_can_be_used_again(tmp_path: Path) -> None:
    find_or_build("kubectl")
    with subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], env=OWN, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"ready\n"
        record = record_of(tmp_path)
        owner.kill()
    wait_until(lambda: nothing_runs(record), "no process left")
    assert find_cluster(tmp_path) is None
    with start(tmp_path, environ=OWN) as again:
        assert again.run_kubectl("get", "--raw", "/readyz") == "ok"


def test_all_ends_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    with start(tmp_path, environ=OWN):
        record = record_of(tmp_path)
        record.supervisor.signal(signal.SIGKILL)
        wait_until(lambda: nothing_runs(record), "no process left")
    assert list(tmp_path.iterdir()) == []


def test_up_keeps_running_and_down_leaves_nothing(tmp_path: Path) -> None:
    state = tmp_path / "state with a space"
    first = run_cli(state, "up")
    assert first.returncode == 0, first.stderr
    assert f"export KUBECONFIG='{state}/kubeconfig'" in first.stdout
    record = record_of(state)
    again = run_cli(state, "up")
    assert (again.returncode, again.stdout.splitlines()[0].split(":")[0]) == (0, "Running already")
    assert record_of(state) == record
    assert run_cli(state, "status").returncode == 0
    assert run_cli(state, "kubeconfig").stdout == f"{state}/kubeconfig\n"
    assert "default" in run_cli(state, "kubectl", "--", "get", "namespaces").stdout
    with pytest.raises(DevclusterError, match="already"):
        start(state, environ=OWN)
    used = run_cli(tmp_path / "other", "up", CYXWIZ_KUBECONFIG=str(state / "kubeconfig"))
    assert (used.returncode, "nothing was started" in used.stdout) == (0, True)
    named = run_cli(tmp_path / "other", "kubectl", "--", "get", "sa", CYXWIZ_KUBECONFIG=str(state / "kubeconfig"))
    assert "default" in named.stdout
    assert not (tmp_path / "other").exists()

    start(state, environ=OWN | {"CYXWIZ_KUBECONFIG": str(state / "kubeconfig")}).stop()
    assert run_cli(state, "status").returncode == 0, "a cluster named as existing was stopped"

    assert run_cli(state, "down").returncode == 0
    assert nothing_runs(record)
    assert list(tmp_path.iterdir()) == []
    assert run_cli(state, "status").returncode == 3


def test_a_start_that_fails_shows_the_guilty_log_and_leaves_nothing(tmp_path: Path) -> None:
    broken = tmp_path / "kube-apiserver"
    broken.write_text("#!/bin/sh\necho 'no such flag: --frobnicate'\nexit 3\n")
    broken.chmod(0o755)
    state = tmp_path / "state"
    with pytest.raises(DevclusterError, match=r"kube-apiserver ended with status 3[\s\S]*no such flag"):
        start(state, environ=OWN, find_binary=lambda name: broken if name == broken.name else find_or_build(name))
    assert not state.exists()


def test_a_port_taken_in_between_is_answered_with_another_attempt(tmp_path: Path) -> None:
    unlucky = tmp_path / "kube-apiserver"
    unlucky.write_text(f"""#!/bin/sh
if mkdir {tmp_path}/tried; then
    echo 'listen tcp 127.0.0.1:1: bind: address already in use'
    exit 1
fi
exec {find_or_build("kube-apiserver")} "$@"
""")
    unlucky.chmod(0o755)
    lines: list[str] = []
    state = tmp_path / "state"

    def find_binary(name: str) -> Path:
        return unlucky if name == unlucky.name else find_or_build(name)

    with start(state, environ=OWN, log=lines.append, find_binary=find_binary) as running:
        assert running.run_kubectl("get", "--raw", "/readyz") == "ok"
    assert any("taken by another process" in line for line in lines)
    assert not state.exists()


def test_a_token_bound_to_a_pod_names_its_node_and_is_no_admin(
    cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    wait_until(lambda: cluster.run_kubectl("-n", namespace, "get", "sa", "default", check=False), "a service account")
    node = '{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}}'
    cluster.run_kubectl("apply", "-f", "-", input=node)
    cluster.run_kubectl("-n", namespace, "create", "-f", "-", input=POD)
    bound = ("--bound-object-kind=Pod", "--bound-object-name=agent")
    token = cluster.run_kubectl("-n", namespace, "create", "token", "default", *bound)
    path = cluster.kubeconfig_for_token(token, tmp_path / "agent")
    who = cluster.run_kubectl("--kubeconfig", str(path), "auth", "whoami", "-o", "yaml")
    assert f"system:serviceaccount:{namespace}:default" in who
    assert "authentication.kubernetes.io/node-name" in who
    with pytest.raises(KubectlError, match="forbidden"):
        cluster.run_kubectl("--kubeconfig", str(path), "get", "nodes")


def test_an_existing_cluster_is_used_and_survives_stop(cluster: Cluster, tmp_path: Path) -> None:
    environ = OWN | {"CYXWIZ_KUBECONFIG": str(cluster.kubeconfig)}
    with start(tmp_path / "state", environ=environ) as used:
        assert used.existing
        assert used.server == cluster.server
        assert used.ca_file.read_text() == cluster.ca_file.read_text()
        assert used.run_kubectl("get", "--raw", "/readyz") == "ok"
    assert not (tmp_path / "state").exists()
    assert cluster.run_kubectl("get", "--raw", "/readyz") == "ok"


def test_stopping_twice_or_nothing_is_no_error(tmp_path: Path) -> None:
    assert stop(tmp_path) is False
    running = start(tmp_path / "state", environ=OWN)
    running.stop()
    running.stop()
    assert not (tmp_path / "state").exists()
