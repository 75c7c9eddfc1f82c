"""Ports, the state folder, kubeconfigs and process identity: what needs no control plane."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cyxwiz_devcluster import DevclusterError, certificates, controlplane, kubeconfig, processes
from cyxwiz_devcluster.processes import Process
from cyxwiz_devcluster.state import State, default_folder
from cyxwiz_devcluster.supervisor import start_time


def test_picked_ports_differ() -> None:
    ports = controlplane.pick_ports()
    assert len({ports.etcd, ports.etcd_peer, ports.api}) == 3
    assert ports.server == f"https://127.0.0.1:{ports.api}"


def test_the_default_folder_is_below_the_named_state_folder(tmp_path: Path) -> None:
    assert default_folder({"CYXWIZ_STATE": str(tmp_path)}) == tmp_path / "devcluster"
    assert default_folder({}) == Path.cwd() / ".state" / "devcluster"


def test_clearing_removes_what_was_made_and_the_folder_with_it(tmp_path: Path) -> None:
    state = State(tmp_path / "new")
    with state.claimed():
        state.pki.mkdir()
        state.clear()
    assert not state.folder.exists()


def test_clearing_keeps_a_folder_that_was_there_and_files_that_are_not_ours(tmp_path: Path) -> None:
    state = State(tmp_path)
    with state.claimed():
        (tmp_path / "notes.txt").write_text("mine")
        state.pki.mkdir()
        state.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_folder_with_somebodys_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    with pytest.raises(DevclusterError, match="not of a devcluster"), State(tmp_path).claimed():
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]


def test_kept_logs_do_not_keep_the_folder_from_being_used_again(tmp_path: Path) -> None:
    state = State(tmp_path)
    with state.claimed():
        state.logs.mkdir()
        state.clear(keep_logs=True)
    assert state.logs.is_dir()
    with state.claimed():
        pass


def test_a_kubeconfig_for_a_token_is_its_owners_alone_and_names_the_server(tmp_path: Path) -> None:
    ca = certificates.Authority(tmp_path / "pki").pair.certificate
    endpoint = kubeconfig.endpoint("https://127.0.0.1:6443", ca)
    path = kubeconfig.write_for_token(tmp_path / "agent", endpoint, "abc\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert yaml.safe_load(path.read_text())["users"][0]["user"] == {"token": "abc"}
    assert kubeconfig.read_endpoint(path).server == "https://127.0.0.1:6443"
    assert kubeconfig.read_endpoint(path).ca() == ca.read_bytes()


def test_an_existing_kubeconfig_may_name_its_ca_relative_to_itself(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("PEM")
    document = {
        "current-context": "b",
        "contexts": [{"name": "b", "context": {"cluster": "two", "user": "u"}}],
        "clusters": [
            {"name": "one", "cluster": {"server": "https://one"}},
            {"name": "two", "cluster": {"server": "https://two", "certificate-authority": "ca.pem"}},
        ],
    }
    (tmp_path / "config").write_text(yaml.safe_dump(document))
    endpoint = kubeconfig.read_endpoint(tmp_path / "config")
    assert (endpoint.server, endpoint.ca()) == ("https://two", b"PEM")


@pytest.mark.parametrize("content", ["", "[", "current-context: gone\ncontexts: []\nclusters: []\n"])
def test_a_kubeconfig_without_a_cluster_is_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "config").write_text(content)
    with pytest.raises(DevclusterError, match="names no cluster"):
        kubeconfig.read_endpoint(tmp_path / "config")


def test_a_reused_pid_is_never_killed() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        started = start_time(child.pid)
        assert started is not None
        Process("an earlier one", child.pid, started - 1).signal(signal.SIGKILL)
        assert Process("this one", child.pid, started).is_running()
        Process("this one", child.pid, started).signal(signal.SIGKILL)
        assert child.wait(10) == -9
        assert not Process("this one", child.pid, started).is_running()
    finally:
        child.kill()
        child.wait()


def test_a_process_that_waits_to_be_reaped_does_not_count_as_running() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    started = start_time(child.pid)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert started is None or not Process("child", child.pid, started).is_running()
    child.wait()


def test_a_torn_or_missing_record_is_no_record(tmp_path: Path) -> None:
    assert processes.read_record(tmp_path / "processes.json") is None
    (tmp_path / "processes.json").write_text('{"superv')
    assert processes.read_record(tmp_path / "processes.json") is None
