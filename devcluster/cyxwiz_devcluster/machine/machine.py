"""Starts a control plane and a node with containers, lets further nodes join, and is the handle to them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from cyxwiz_devcluster import certificates, controlplane, kubeconfig, processes, readiness
from cyxwiz_devcluster.binaries import find_or_build
from cyxwiz_devcluster.cluster import Cluster, FindBinary
from cyxwiz_devcluster.console import tell
from cyxwiz_devcluster.errors import DevclusterError
from cyxwiz_devcluster.processes import Record, SupervisorHandle
from cyxwiz_devcluster.state import State

from . import components
from .images import Images
from .namespaces import ENTER, HOLD, Namespaces, leave
from .node import Node, Parts, remove_cgroups, wait
from .place import FIRST_NODE, NodePlace
from .requirements import hold_machine, why_not

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


class Machine(Cluster):
    """A Kubernetes with a node, `machine`, on which pods run. As a context manager it ends with the block."""

    def __init__(
        self,
        state: State,
        endpoint: kubeconfig.Endpoint,
        kubectl: Path,
        supervisor: SupervisorHandle,
        namespaces: Namespaces,
        parts: Parts,
        lock: int,
    ) -> None:
        super().__init__(state, state.kubeconfig, endpoint, kubectl, supervisor)
        self._inside = namespaces
        self._parts = parts
        self._lock = lock
        self._archives: list[Path] = []
        self.nodes = {FIRST_NODE: Node(_first_place(state), parts, namespaces)}

    @property
    def folder(self) -> Path:
        """A folder that is the same for every node and for this process."""
        return self.state / "machine"

    @property
    def local(self) -> Path:
        """A folder, by its name on every node, of which each node has its own."""
        return self.folder / "local"

    def local_of(self, node: str) -> Path:
        """The same folder of that node, as this process sees it."""
        return self.local if node == FIRST_NODE else self.nodes[node].place.folder / "local"

    def load(self, images: Images, *names: str) -> None:
        """Pods of every node may use these images, under `imagePullPolicy: Never`."""
        archive = self.folder / f"images-{len(self._archives)}.tar"
        images.save(names, archive)
        self._archives.append(archive)
        for node in self.nodes.values():
            node.load(archive)

    def join(self, name: str) -> None:
        """A further node is Ready, and its pods may use all images that were loaded before."""
        assert self._supervisor is not None
        deadline = time.monotonic() + READY_WITHIN_S
        place = NodePlace(name, self.folder / name, number=len(self.nodes))
        for folder in (self.local, place.folder / "local"):
            folder.mkdir(parents=True, exist_ok=True)
        holder = f"{name}-namespaces"
        self._parts.launch(holder, list(HOLD))
        branch = self._inside.branch(place, self._pid(holder, deadline))
        # Mounts of the first node were copied, and are none of this one's.
        branch.run("umount", "--recursive", "--lazy", str(components.KUBELET_ROOT))
        branch.run("mount", "--bind", str(place.folder / "local"), str(self.local))
        node = self.nodes[name] = Node(place, self._parts, branch)
        node.start_containerd()
        wait(lambda: node.ctr("version"), f"containerd of {name} did not answer", deadline)
        for archive in self._archives:
            node.load(archive)
        node.start_kubelet()
        self.wait_ready(name, deadline)

    def wait_ready(self, name: str, deadline: float) -> None:
        """The node is Ready by `deadline`, of the monotonic clock. Raises DevclusterError."""
        wait(
            lambda: self.run_kubectl("wait", "--for=condition=Ready", f"node/{name}", "--timeout=5s"),
            f"The node {name} was not Ready; see {self._state.logs}/{self.nodes[name].place.process('kubelet')}.log",
            deadline,
        )

    def disconnect(self, name: str) -> None:
        """A further node is lost to everybody, and runs on by itself."""
        self._inside.disconnect(self.nodes[name].place)

    def connect(self, name: str) -> None:
        """It is back on the network."""
        self._inside.connect(self.nodes[name].place)

    def _pid(self, name: str, deadline: float) -> int:
        """The number that a process of the machine has in there."""
        while True:
            record = self.record()
            if found := [each.pid for each in (record.processes if record else ()) if each.name == name]:
                return found[0]
            if time.monotonic() > deadline:
                raise DevclusterError(f"{name} was not started")
            time.sleep(0.02)

    def run_beside(self, name: str, command: list[str], node: str = FIRST_NODE) -> Path:
        """A process of the node, beside its containers, writes to the file. When it ends, the machine does."""
        self.nodes[node].launch(name, command)
        return self._state.logs / f"{self.nodes[node].place.process(name)}.log"

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
    first = _first_place(place)
    place.logs.mkdir(parents=True, exist_ok=True)
    _allow_inotify()
    _clean_up()
    authority = certificates.Authority(place.pki)
    keys = certificates.issue_all(authority, ("127.0.0.1", "10.96.0.1", first.address))
    kubelet_client = authority.issue("kubelet-client", "kubelet-client", groups=["system:masters"])
    api_server = kubeconfig.endpoint(f"https://{first.address}:{PORTS.api}", keys.ca.certificate)
    kubeconfig.write_for_certificate(place.kubeconfig, api_server, "admin", keys.admin)

    supervisor = SupervisorHandle(place.record, place.logs / "supervisor.log", ENTER)

    def launch(name: str, command: list[str]) -> None:
        supervisor.start(name, command, place.logs / f"{name}.log")

    def recorded() -> Record | None:
        return processes.read_record(place.record)

    parts = Parts(found, authority, keys.ca.certificate, api_server, place.pki, launch)
    try:
        namespaces = Namespaces(supervisor.pid)
        namespaces.join(first)
        machine = Machine(place, api_server, found["kubectl"], supervisor, namespaces, parts, lock)
        node = machine.nodes[FIRST_NODE]
        node.start_containerd()
        launch("etcd", controlplane.etcd_command(found["etcd"], place.folder / "etcd", PORTS, keys))
        launch(
            "kube-apiserver",
            controlplane.reachable_apiserver_command(
                found["kube-apiserver"], PORTS, keys, first.address, kubelet_client
            ),
        )
        api = readiness.Api(api_server.server, keys.ca.certificate, keys.admin)

        def wait_for(path: str, what: str) -> None:
            readiness.wait_for(api, path, what, recorded, supervisor.has_ended, deadline)

        wait_for(readiness.READY, "The API server was not ready")
        manager = kubeconfig.write_for_certificate(
            place.pki / "kube-controller-manager.kubeconfig",
            api_server,
            "kube-controller-manager",
            keys.controller_manager,
        )
        launch(
            "kube-controller-manager",
            controlplane.controller_manager_command(found["kube-controller-manager"], manager, keys),
        )
        scheduler = parts.signed_in("kube-scheduler", "system:kube-scheduler")
        launch("kube-scheduler", components.scheduler_command(found["kube-scheduler"], scheduler))
        wait(lambda: node.ctr("version"), "containerd did not answer", deadline)
        machine.load(images, pause)
        node.start_kubelet()
        wait_for(readiness.DEFAULT_ACCOUNT, "The service account `default` was not made")
        machine.wait_ready(FIRST_NODE, deadline)
        place.note(kubectl=str(found["kubectl"]), server=api_server.server)
    except BaseException:
        supervisor.kill()
        _clean_up()
        place.clear(keep_logs=True)
        raise
    log(f"node Ready after {time.monotonic() - started:.1f} s")
    return machine


def _first_place(state: State) -> NodePlace:
    return NodePlace(FIRST_NODE, state.folder / "machine", number=0)


def _allow_inotify() -> None:
    """Each component watches files; the usual 128 instances per user are not enough for all."""
    if int(INOTIFY_INSTANCES.read_text()) < LEAST_INOTIFY_INSTANCES:
        with contextlib.suppress(OSError):
            INOTIFY_INSTANCES.write_text(str(LEAST_INOTIFY_INSTANCES))


def _clean_up() -> None:
    """What outlives the namespaces is gone: an interface, and the kubelet's groups, whose processes have ended."""
    leave()
    remove_cgroups()
