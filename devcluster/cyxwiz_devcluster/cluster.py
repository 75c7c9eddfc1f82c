"""Starts a control plane in a state folder, and is the handle to it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from . import binaries, certificates, controlplane, kubeconfig, processes, readiness
from .binaries import find_or_build
from .console import tell
from .errors import DevclusterError, KubectlError
from .kubeconfig import Endpoint
from .processes import Record, SupervisorHandle
from .state import State

EXISTING = "CYXWIZ_KUBECONFIG"
READY_WITHIN_S = 120.0  # 3 s when the machine is idle; a cold disk and a busy machine need far more
PORT_ATTEMPTS = 5

FindBinary = Callable[[str], Path]


class Cluster:
    """A control plane that answers, with admin's credentials in `kubeconfig`.

    As a context manager it is stopped at the end of the block.
    """

    def __init__(
        self,
        state: State,
        kubeconfig_path: Path,
        endpoint: Endpoint,
        kubectl: Path,
        supervisor: SupervisorHandle | None = None,
        *,
        existing: bool = False,
    ) -> None:
        self.kubeconfig = kubeconfig_path
        self.kubectl = kubectl
        self.existing = existing  # somebody else's: never stopped from here
        self._state = state
        self._endpoint = endpoint
        self._supervisor = supervisor

    @property
    def state(self) -> Path:
        return self._state.folder

    @property
    def server(self) -> str:
        return self._endpoint.server

    @property
    def ca_file(self) -> Path:
        """A PEM file with the authority that signed the server's certificate."""
        path = self.state / "ca.crt"
        if not path.exists():
            content = self._endpoint.ca()
            if content is None:
                raise DevclusterError(f"The kubeconfig {self.kubeconfig} holds no certificate authority.")
            path.write_bytes(content)
        return path

    def record(self) -> Record | None:
        """The processes of this cluster, None for an existing one."""
        return processes.read_record(self._state.record)

    def run_kubectl(self, *args: str, input: str | None = None, check: bool = True, timeout: float = 60) -> str:
        """What kubectl printed, as admin; with `check` a non-zero exit status raises `KubectlError`."""
        environ = os.environ | {"KUBECONFIG": str(self.kubeconfig), "KUBECACHEDIR": str(self.state / "kubectl-cache")}
        command = [str(self.kubectl), *args]
        try:
            answer = subprocess.run(
                command, env=environ, input=input, capture_output=True, text=True, check=False, timeout=timeout
            )
        except subprocess.TimeoutExpired as error:
            raise KubectlError(args, 124, f"no answer within {timeout:g} s") from error
        if check and answer.returncode != 0:
            raise KubectlError(args, answer.returncode, answer.stderr.strip())
        return answer.stdout

    def kubeconfig_for_token(self, token: str, path: Path) -> Path:
        """A kubeconfig for this cluster with that bearer token, readable by its owner only."""
        return kubeconfig.write_for_token(Path(path), self._endpoint, token)

    def stop(self, *, keep_logs: bool = False) -> None:
        """No process of the cluster runs and nothing of it is left in the state folder; an existing one runs on."""
        if self.existing and self.record() is not None:
            return  # it is the one that runs in this very folder
        if self._supervisor is not None:
            self._supervisor.release()
        stop(self.state, keep_logs=keep_logs)
        if self._supervisor is not None:
            self._supervisor.reap()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


def start(
    state: Path,
    *,
    owned: bool = True,
    log: Callable[[str], None] = tell,
    environ: Mapping[str, str] = os.environ,
    find_binary: FindBinary | None = None,
    apiserver_flags: Sequence[str] = (),
) -> Cluster:
    """A control plane that can take a Pod. `owned` ties its life to the calling process, else it runs until `stop`.

    Where `CYXWIZ_KUBECONFIG` names a kubeconfig, nothing is started and that existing cluster is handed out.
    Binaries that are missing are built first, which takes minutes when Go's caches are cold. `apiserver_flags` go to
    an API server started here beside its usual ones, such as those of an audit log.
    """
    if sys.platform != "linux":
        raise DevclusterError("A devcluster needs Linux: it ends processes by pidfd and PR_SET_PDEATHSIG.")
    find_binary = find_binary or (lambda name: find_or_build(name, log, environ))
    place = State(Path(state).absolute())
    if named := environ.get(EXISTING):
        return _use_existing(Path(named).absolute(), place, find_binary)
    with place.claimed():
        if find(place.folder) is not None:
            raise DevclusterError(f"A control plane runs in {place.folder} already: stop it, or name another folder.")
        _end_recorded(place)
        try:
            found = {name: find_binary(name) for name in binaries.CONTROL_PLANE}
            return _start_with_free_ports(place, found, owned, log, apiserver_flags)
        except BaseException:  # an interrupt too must not leave half a cluster behind
            place.clear()
            raise


def find(state: Path) -> Cluster | None:
    """The control plane that runs in this folder, if one does."""
    place = State(Path(state).absolute())
    record = processes.read_record(place.record)
    facts = place.facts()
    if record is None or not facts.get("kubectl") or not all(each.is_running() for each in record.everything()):
        return None
    endpoint = kubeconfig.read_endpoint(place.kubeconfig)
    return Cluster(place, place.kubeconfig, endpoint, Path(str(facts["kubectl"])))


def stop(state: Path, *, keep_logs: bool = False) -> bool:
    """Nothing of a cluster runs or is left in this folder; says whether anything ran."""
    place = State(Path(state).absolute())
    if not place.is_ours():
        return False
    with place.claimed():
        ran = _end_recorded(place)
        place.clear(keep_logs=keep_logs)
        return ran


def _end_recorded(place: State) -> bool:
    """No process that this folder's record names runs any more; says whether one did."""
    record = processes.read_record(place.record)
    if record is None:
        return False
    ran = any(process.is_running() for process in record.everything())
    processes.end_everything(record)
    return ran


def _use_existing(path: Path, place: State, find_binary: FindBinary) -> Cluster:
    endpoint = kubeconfig.read_endpoint(path)
    kubectl = find_binary("kubectl")
    with place.claimed():
        return Cluster(place, path, endpoint, kubectl, existing=True)


def _start_with_free_ports(
    place: State, found: Mapping[str, Path], owned: bool, log: Callable[[str], None], flags: Sequence[str]
) -> Cluster:
    for attempt in range(1, PORT_ATTEMPTS + 1):
        place.empty()
        place.note(kubectl=None)  # not ready
        try:
            return _start_once(place, found, owned, log, flags)
        except readiness.PortTakenError as error:
            if attempt == PORT_ATTEMPTS:
                raise
            log(str(error).splitlines()[0])
    raise AssertionError("the last attempt returns or raises")


def _start_once(
    place: State, found: Mapping[str, Path], owned: bool, log: Callable[[str], None], flags: Sequence[str]
) -> Cluster:
    """One attempt, told in order; when it fails nothing of it runs."""
    started = time.monotonic()
    deadline = started + READY_WITHIN_S
    place.logs.mkdir()
    keys = certificates.issue_all(certificates.Authority(place.pki))
    ports = controlplane.pick_ports()
    endpoint = kubeconfig.endpoint(ports.server, keys.ca.certificate)
    kubeconfig.write_for_certificate(place.kubeconfig, endpoint, "admin", keys.admin)
    manager_kubeconfig = kubeconfig.write_for_certificate(
        place.pki / "kube-controller-manager.kubeconfig", endpoint, "kube-controller-manager", keys.controller_manager
    )
    api = readiness.Api(ports.server, keys.ca.certificate, keys.admin)
    supervisor = SupervisorHandle(place.record, place.logs / "supervisor.log")

    def launch(name: str, command: list[str]) -> None:
        supervisor.start(name, command, place.logs / f"{name}.log")

    def recorded() -> Record | None:
        return processes.read_record(place.record)

    def wait_for(path: str, what: str) -> None:
        readiness.wait_for(api, path, what, recorded, supervisor.has_ended, deadline)

    try:
        launch("etcd", controlplane.etcd_command(found["etcd"], place.folder / "etcd", ports, keys))
        launch("kube-apiserver", [*controlplane.apiserver_command(found["kube-apiserver"], ports, keys), *flags])
        wait_for(readiness.READY, "The API server was not ready")
        ready_s = time.monotonic() - started
        # Only now: it gives up on an API server that takes more than 10 s.
        manager = controlplane.controller_manager_command(found["kube-controller-manager"], manager_kubeconfig, keys)
        launch("kube-controller-manager", manager)
        wait_for(readiness.DEFAULT_ACCOUNT, "The service account `default` was not made")
        place.note(kubectl=str(found["kubectl"]), server=ports.server)
        if not owned:
            supervisor.detach()
    except BaseException:
        supervisor.release()
        supervisor.reap()
        raise
    log(f"API server ready after {ready_s:.1f} s, first Pod possible after {time.monotonic() - started:.1f} s")
    return Cluster(place, place.kubeconfig, endpoint, found["kubectl"], supervisor)
