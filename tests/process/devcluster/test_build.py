"""Building and the ways it cannot go, with a `go` of our own that writes its binary in no time."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cyxwiz_devcluster import DevclusterError, binaries, build

FAKE_GO = """#!/bin/sh
if [ -n "$FAKE_GO_BROKEN" ]; then
    echo "toolchain not available" >&2
    exit 1
fi
if [ "$1" = env ]; then
    [ "$2" = GOVERSION ] && echo "${FAKE_GO_VERSION:-go1.26.8}"
    exit 0
fi
echo "$*" >> "$FAKE_GO_CALLS"
while [ "$1" != -o ]; do shift; done
if [ -n "$FAKE_GO_FAILS" ]; then
    echo half > "$2"
    echo "main.go:3: $FAKE_GO_FAILS" >&2
    exit 1
fi
sleep 0.2
echo "a binary" > "$2"
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment with the fake `go`, an empty cache and nothing ready-made."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "go").write_text(FAKE_GO)
    (tools / "go").chmod(0o755)
    return {
        "PATH": f"{tools}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "FAKE_GO_CALLS": str(tmp_path / "calls"),
    }


def calls(environ: dict[str, str]) -> list[str]:
    path = Path(environ["FAKE_GO_CALLS"])
    return path.read_text().splitlines() if path.exists() else []


def run_cli(environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cyxwiz_devcluster", *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)


def test_a_binary_is_built_once_and_then_found(environ: dict[str, str]) -> None:
    lines: list[str] = []
    first = binaries.find_or_build("etcd", lines.append, environ)
    second = binaries.find_or_build("etcd", lines.append, environ)
    assert first == second
    assert first.read_text() == "a binary\n"
    assert len(calls(environ)) == 1
    assert lines[0].startswith("building etcd")
    assert lines[-1].startswith("built etcd in")
    assert sorted(path.name for path in first.parent.iterdir()) == ["etcd", "etcd.size"]


def test_two_who_need_the_same_binary_build_it_once(environ: dict[str, str]) -> None:
    lines: list[str] = []
    threads = [threading.Thread(target=binaries.find_or_build, args=("etcd", lines.append, environ)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(calls(environ)) == 1


def test_a_half_built_binary_is_built_again(environ: dict[str, str]) -> None:
    binary = binaries.find_or_build("etcd", lambda line: None, environ)
    binary.write_text("a b")
    (binary.parent / ".building-etcd-1").write_text("left by a killed build")
    assert binaries.find_or_build("etcd", lambda line: None, environ).read_text() == "a binary\n"
    assert len(calls(environ)) == 2
    assert sorted(path.name for path in binary.parent.iterdir()) == ["etcd", "etcd.size"]


def test_a_failed_build_leaves_nothing_and_says_what_go_said(environ: dict[str, str]) -> None:
    with pytest.raises(DevclusterError, match=r"Building etcd failed \(exit status 1\)[\s\S]*undefined: x"):
        binaries.find_or_build("etcd", lambda line: None, environ | {"FAKE_GO_FAILS": "undefined: x"})
    assert list(build.cache_root(environ).glob("*/*")) == []


@pytest.mark.parametrize("change", [{"PATH": "/nowhere"}, {"FAKE_GO_VERSION": "go1.24.1"}, {"FAKE_GO_BROKEN": "1"}])
def test_a_cached_binary_is_used_on_a_machine_without_a_fitting_go(
    environ: dict[str, str], change: dict[str, str]
) -> None:
    built = binaries.find_or_build("etcd", lambda line: None, environ)
    assert binaries.find_or_build("etcd", lambda line: None, environ | change) == built


def test_ready_made_binaries_of_a_fitting_version_are_taken(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()
    for name, says in (("etcd", "etcd Version: 3.6.5"), ("kube-apiserver", "Kubernetes v1.30.0")):
        path = tmp_path / "assets" / name
        path.write_text(f"#!/bin/sh\necho {says}\n")
        path.chmod(0o755)
    environ["KUBEBUILDER_ASSETS"] = str(tmp_path / "assets")
    lines: list[str] = []
    assert binaries.find_or_build("etcd", lines.append, environ) == tmp_path / "assets" / "etcd"
    assert binaries.find("kube-apiserver", lines.append, environ) is None
    assert len(lines) == 1
    assert "kube-apiserver" in lines[0]


def test_a_dispatching_kubectl_on_path_is_not_taken(environ: dict[str, str], tmp_path: Path) -> None:
    kubectl = tmp_path / "tools" / "kubectl"
    kubectl.write_text("""#!/bin/sh\necho '{"clientVersion": {"gitVersion": "v1.36.4-dispatcher"}}'\n""")
    kubectl.chmod(0o755)
    assert binaries.find("kubectl", print, environ) is None
    kubectl.write_text("""#!/bin/sh\necho '{"clientVersion": {"gitVersion": "v1.36.4"}}'\n""")
    assert binaries.find("kubectl", print, environ) == kubectl


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"PATH": "/nowhere"}, "`go` was not found on PATH. Install Go 1.26 or newer"),
        (
            {"FAKE_GO_VERSION": "go1.24.1"},
            "There is no etcd yet. It has to be built and go1.24.1 on PATH is too old. Install Go 1.26",
        ),
        ({"FAKE_GO_BROKEN": "1"}, "it says: toolchain not available. Install Go 1.26"),
        ({"XDG_CACHE_HOME": "/proc/cyxwiz"}, "set XDG_CACHE_HOME to a writable folder"),
        ({"FAKE_GO_FAILS": "no space left"}, "no space left"),
    ],
)
def test_a_build_that_cannot_go_is_said_plainly_and_leaves_nothing(
    environ: dict[str, str], tmp_path: Path, change: dict[str, str], sentence: str
) -> None:
    answer = run_cli(environ | change, "up", "--state", str(tmp_path / "state"))
    assert answer.returncode == 1
    assert sentence in answer.stderr
    assert "Traceback" not in answer.stderr
    assert not (tmp_path / "state").exists()


def test_a_state_folder_that_cannot_be_is_said_before_anything_is_built(
    environ: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/cyxwiz")):
        answer = run_cli(environ, "up", "--state", str(folder))
        assert answer.returncode == 1
        assert "cannot be used as a state folder" in answer.stderr
        assert answer.stderr.count("\n") == 1
    assert calls(environ) == []


def test_a_killed_build_leaves_the_lock_free(environ: dict[str, str]) -> None:
    environ["FAKE_GO_CALLS"] = os.devnull
    command = [sys.executable, "-m", "cyxwiz_devcluster", "build", "etcd"]
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE) as builder:
        assert builder.stderr is not None
        assert b"building etcd" in builder.stderr.readline()
        builder.kill()
    assert binaries.find_or_build("etcd", lambda line: None, environ).read_text() == "a binary\n"


def test_usage_and_not_running_have_their_exit_statuses(environ: dict[str, str], tmp_path: Path) -> None:
    assert run_cli(environ, "--help").returncode == 0
    assert run_cli(environ, "frobnicate").returncode == 2
    assert run_cli(environ, "status", "--state", str(tmp_path / "state")).returncode == 3
    assert run_cli(environ, "kubeconfig", "--state", str(tmp_path / "state")).returncode == 3
    assert run_cli(environ, "down", "--state", str(tmp_path / "state")).returncode == 0
    assert not (tmp_path / "state").exists()
