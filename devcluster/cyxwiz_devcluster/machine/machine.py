"""Starts a control plane and one node with containers, and is the handle to them."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from cyxwiz_devcluster import certificates, controlplane, kubeconfig, processes, readiness
from cyxwiz_devcluster.binaries import find_or_build
from cyxwiz_devcluster.cluster import Cluster, FindBinary
from cyxwiz_devcluster.console import tell
from cyxwiz_devcluster.errors import DevclusterError, KubectlError
from cyxwiz_devcluster.processes import Record, SupervisorHandle
from cyxwiz_devcluster.state import State

from . import components, runtime
from .images import Images
from .namespaces import ADDRESS, ENTER, Namespaces, leave
from .requirements import hold_machine, why_not

NODE = "machine"
BINARIES = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
)
# The machine has a loopback of its own, so these are never taken.
PORTS = controlplane.Ports(etcd=2379, etcd_peer=2380, api=6443)
READY_WITHIN_S = 240.0
INOTIFY_INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")
LEAST_INOTIFY_INSTANCES = 1024
CGROUPS = Path("/sys/fs/cgroup")
CGROUPS_GONE_WITHIN_S = 5.0


class Machine(Cluster):
    """A Kubernetes with one node, `machine`, on which pods run. As a context manager it ends with the block."""

    def __init__(
        self,
        state: State,
        endpoint: kubeconfig.Endpoint,
        kubectl: Path,
        supervisor: SupervisorHandle,
        namespaces: Namespaces,
        lock: int,
    ) -> None:
        super().__init__(state, state.kubeconfig, endpoint, kubectl, supervisor)
        self._inside = namespaces
        self._lock = lock
        self._containerd = state.folder / "machine" / "containerd"

    @property
    def folder(self) -> Path:
        """A folder that is the same for the machine and for this process."""
        return self.state / "machine"

    def load(self, images: Images, *names: str) -> None:
        """The node's pods may use these images, under `imagePullPolicy: Never`."""
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder, "images.tar")
            images.save(names, archive)
            self.ctr("images", "import", str(archive), within_s=600)

    def ctr(self, *arguments: str, within_s: float = 60) -> str:
        """What containerd's client printed."""
        address = str(runtime.socket(self._containerd))
        return self._inside.run("ctr", "--address", address, "--namespace", "k8s.io", *arguments, within_s=within_s)

    def run_beside(self, name: str, command: list[str]) -> Path:
        """A process of the machine, beside its containers, writes to the file. When it ends, the machine does."""
        assert self._supervisor is not None
        log = self._state.logs / f"{name}.log"
        self._supervisor.start(name, command, log)
        return log

    def stop(self, *, keep_logs: bool = False) -> None:
        """No process of the machine runs, containers included, and nothing of it is left on disk."""
        assert self._supervisor is not None
        try:
            self._supervisor.kill()
            _clean_up()
            self._state.clear(keep_logs=keep_logs)
        finally:
            with contextlib.suppress(OSError):
                os.close(self._lock)


def start(
    state: Path,
    *,
    images: Images | None = None,
    log: Callable[[str], None] = tell,
    environ: Mapping[str, str] = os.environ,
    find_binary: FindBinary | None = None,
) -> Machine:
    """A machine whose node is Ready. It ends with the calling process. Raises DevclusterError."""
    if (reason := why_not()) is not None:
        raise DevclusterError(f"No kubelet can run here: {reason}.")
    find_binary = find_binary or (lambda name: find_or_build(name, log, environ))
    images = images or Images(log)
    place = State(Path(state).absolute())
    lock = hold_machine()
    if lock is None:
        raise DevclusterError("A kubelet of another devcluster runs on this machine: stop it first.")
    try:
        with place.claimed():
            place.empty()
            found = {name: find_binary(name) for name in BINARIES}
            pause = images.pause()
            return _start(place, found, images, pause, lock, log)
    except BaseException:
        os.close(lock)
        raise


def _start(
    place: State, found: Mapping[str, Path], images: Images, pause: str, lock: int, log: Callable[[str], None]
) -> Machine:
    """Told in order; when it fails nothing of it runs."""
    started = time.monotonic()
    deadline = started + READY_WITHIN_S
    folder = place.folder / "machine"
    for each in (place.logs, folder / "containerd", folder / "kubelet"):
        each.mkdir(parents=True, exist_ok=True)
    _allow_inotify()
    _clean_up()
    authority = certificates.Authority(place.pki)
    keys = certificates.issue_all(authority, ("127.0.0.1", "10.96.0.1", ADDRESS))
    kubelet_client = authority.issue("kubelet-client", "kubelet-client", groups=["system:masters"])
    outside = kubeconfig.endpoint(f"https://{ADDRESS}:{PORTS.api}", keys.ca.certificate)
    inside = kubeconfig.endpoint(PORTS.server, keys.ca.certificate)
    kubeconfig.write_for_certificate(place.kubeconfig, outside, "admin", keys.admin)

    def signed_in(name: str, user: str, *groups: str) -> Path:
        pair = keys.controller_manager if name == "kube-controller-manager" else authority.issue(name, user, groups)
        return kubeconfig.write_for_certificate(place.pki / f"{name}.kubeconfig", inside, name, pair)

    supervisor = SupervisorHandle(place.record, place.logs / "supervisor.log", ENTER)

    def launch(name: str, command: list[str]) -> None:
        supervisor.start(name, command, place.logs / f"{name}.log")

    def recorded() -> Record | None:
        return processes.read_record(place.record)

    try:
        namespaces = Namespaces(supervisor.pid)
        namespaces.join()
        root = folder / "kubelet" / "root"
        root.mkdir()
        components.KUBELET_ROOT.mkdir(parents=True, exist_ok=True)
        namespaces.run("mount", "--bind", str(root), str(components.KUBELET_ROOT))
        machine = Machine(place, outside, found["kubectl"], supervisor, namespaces, lock)
        launch("containerd", runtime.write(folder / "containerd"))
        launch("etcd", controlplane.etcd_command(found["etcd"], place.folder / "etcd", PORTS, keys))
        launch(
            "kube-apiserver",
            controlplane.reachable_apiserver_command(found["kube-apiserver"], PORTS, keys, ADDRESS, kubelet_client),
        )
        api = readiness.Api(outside.server, keys.ca.certificate, keys.admin)

        def wait_for(path: str, what: str) -> None:
            readiness.wait_for(api, path, what, recorded, supervisor.has_ended, deadline)

        wait_for(readiness.READY, "The API server was not ready")
        manager = signed_in("kube-controller-manager", "")
        launch(
            "kube-controller-manager",
            controlplane.controller_manager_command(found["kube-controller-manager"], manager, keys),
        )
        scheduler = signed_in("kube-scheduler", "system:kube-scheduler")
        launch("kube-scheduler", components.scheduler_command(found["kube-scheduler"], scheduler))
        _wait(lambda: machine.ctr("version"), "containerd did not answer", deadline)
        machine.load(images, pause)
        kubelet = components.kubelet_command(
            found["kubelet"],
            folder / "kubelet",
            signed_in("kubelet", f"system:node:{NODE}", "system:nodes"),
            keys.ca.certificate,
            node=NODE,
            address=ADDRESS,
            containerd=folder / "containerd",
        )
        launch("kubelet", kubelet)
        proxy = signed_in("kube-proxy", "system:kube-proxy")
        launch("kube-proxy", components.proxy_command(found["kube-proxy"], folder, proxy, NODE))
        wait_for(readiness.DEFAULT_ACCOUNT, "The service account `default` was not made")
        _wait(
            lambda: machine.run_kubectl("wait", "--for=condition=Ready", f"node/{NODE}", "--timeout=5s"),
            f"The node was not Ready; see {place.logs}/kubelet.log",
            deadline,
        )
        place.note(kubectl=str(found["kubectl"]), server=outside.server)
    except BaseException:
        supervisor.kill()
        _clean_up()
        place.clear(keep_logs=True)
        raise
    log(f"node Ready after {time.monotonic() - started:.1f} s")
    return machine


def _wait(attempt: Callable[[], object], what: str, deadline: float) -> None:
    while True:
        try:
            attempt()
            return
        except (DevclusterError, KubectlError) as error:
            if time.monotonic() > deadline:
                raise DevclusterError(f"{what}: {error}") from error
            time.sleep(0.2)


def _allow_inotify() -> None:
    """Each component watches files; the usual 128 instances per user are not enough for all."""
    if int(INOTIFY_INSTANCES.read_text()) < LEAST_INOTIFY_INSTANCES:
        with contextlib.suppress(OSError):
            INOTIFY_INSTANCES.write_text(str(LEAST_INOTIFY_INSTANCES))


def _clean_up() -> None:
    """What outlives the namespaces is gone: an interface, and the kubelet's groups, whose processes have ended."""
    leave()
    deadline = time.monotonic() + CGROUPS_GONE_WITHIN_S  # the last process of a group is not gone at once
    while (roots := [*CGROUPS.glob("kubepods"), *CGROUPS.glob("*/kubepods")]) and time.monotonic() < deadline:
        for root in roots:
            for group in sorted([root, *root.rglob("*/")], key=lambda path: -len(path.parts)):
                with contextlib.suppress(OSError):
                    group.rmdir()
        time.sleep(0.05)
