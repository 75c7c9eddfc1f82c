"""Installs the chart's resources and permissions on a devcluster and runs the platform there as processes."""

from __future__ import annotations

import ipaddress
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cyxwiz_devcluster import Cluster, find_or_build

from .children import PlatformProcess
from .simulated_gpus import SimulatedGpus

NAMESPACE = "cyxwiz-system"
CHART = Path(__file__).parents[2] / "helm" / "cyxwiz"
READY_WITHIN_S = 90.0
FIRST_UID, UIDS_OF_A_MACHINE = 200_000, 1000
"""Machines that are one in truth must not give one uid twice."""
LOOPBACK = "127.0.0.1"
LOGS_PORT = 8444
AGENT_LABELS = {"app.kubernetes.io/name": "cyxwiz", "app.kubernetes.io/component": "node"}
TOKEN_LIFETIME = "24h"  # noqa: S105  # a duration


class PlatformError(Exception):
    """A part of the platform did not come up; says which, and its last words."""


@dataclass
class Machine:
    """One simulated machine: a real runner and a real agent, sharing this machine's cores."""

    name: str
    cpus: int
    memory: str
    warm: int
    state: Path
    data: Path | None
    gpus: tuple[str, ...]
    first_uid: int
    simulated: SimulatedGpus | None
    agent_port: int
    logs_port: int
    runner: PlatformProcess
    agent: PlatformProcess


class Platform:
    """Operator and nodes on one devcluster. As a context manager, everything it started ends with the block."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        """Nothing runs yet; `folder` takes logs, tokens and the nodes' states."""
        self.cluster = cluster
        self.folder = folder
        self.logs = folder / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.remote = folder / "remote.json"
        """What its nodes may read and write over the network; read anew for each job."""
        self.remote.write_text("{}")
        self.operator: PlatformProcess | None = None
        self.operator_port = 0
        self.metrics_port = 0
        """Where the operator serves /metrics."""
        self.machines: dict[str, Machine] = {}

    def __enter__(self) -> Platform:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def install(self) -> None:
        """Resources, service accounts, roles and policies of the chart exist and are enforced."""
        kubectl = self.cluster.run_kubectl
        helm = [str(find_or_build("helm")), "template", "cyxwiz", str(CHART), "--namespace", NAMESPACE, "--skip-tests"]
        # Its workloads run as processes here.
        without_pods = ["--set", "operator.enabled=false,nodes.enabled=false,agent.logs.enabled=true"]
        rendered = subprocess.run([*helm, *without_pods], capture_output=True, text=True, check=False)
        if rendered.returncode != 0:
            raise PlatformError(f"helm could not render the chart: {rendered.stderr.strip()}")
        kubectl("apply", "-f", "-", input=yaml.safe_dump(_namespace(NAMESPACE)))
        kubectl("apply", "--server-side", "-f", "-", input=rendered.stdout)
        crds = [f"crd/{plural}.cyxwiz.io" for plural in ("trainingjobs", "computenodes")]
        kubectl("wait", "--for=condition=Established", "--timeout=30s", *crds, timeout=40)

    def start_operator(self, *flags: str, wait: bool = True, module: str = "cyxwiz_operator") -> PlatformProcess:
        """The operator runs with its own token; with `wait` it has read everything and is ready to decide."""
        token = self.cluster.run_kubectl(
            "create", "token", "cyxwiz-operator", "-n", NAMESPACE, f"--duration={TOKEN_LIFETIME}"
        ).strip()
        kubeconfig = self.cluster.kubeconfig_for_token(token, self.folder / "operator.kubeconfig")
        self.operator_port = self.operator_port or free_port()
        self.metrics_port = self.metrics_port or free_port()
        command = [sys.executable, "-m", module, "--kubeconfig", str(kubeconfig), "--namespace", NAMESPACE]
        command += ["--health-port", str(self.operator_port), "--metrics-port", str(self.metrics_port), *flags]
        self.operator = PlatformProcess("operator", command, self.logs / "operator.log")
        if wait:
            wait_ready(self.operator, self.operator_port)
        return self.operator

    def add_machine(
        self,
        name: str,
        *,
        cpus: int,
        memory: str,
        warm: int = 1,
        data: Path | None = None,
        labels: dict[str, str] | None = None,
        gpus: tuple[str, ...] = (),
        simulated_gpus: int = 0,
    ) -> Machine:
        """A Node and its agent's Pod exist as objects; runner and agent run. `wait_machines` waits for them.

        `gpus` are UUIDs to keep a trainer warm on, or "all" for those the agent finds; which GPUs the machine has,
        its agent asks the driver, or with `simulated_gpus` a library that simulates so many.
        """
        ports = (free_port(), free_port())
        objects = [node_object(name, labels or {}), agent_pod(name, ports[1]), agent_service()]
        self.cluster.run_kubectl("apply", "-f", "-", input=yaml.safe_dump_all(objects))
        self._tell_address(name)
        state = self.folder / "nodes" / name
        state.mkdir(parents=True, exist_ok=True)
        first_uid = FIRST_UID + UIDS_OF_A_MACHINE * len(self.machines)
        runner = self._runner(name, state, cpus, memory, warm, data, gpus, first_uid)
        simulated = SimulatedGpus(self.folder / f"gpus-{name}.json", simulated_gpus) if simulated_gpus else None
        agent = self._agent(name, state, cpus, memory, ports, simulated)
        machine = Machine(name, cpus, memory, warm, state, data, gpus, first_uid, simulated, *ports, runner, agent)
        self.machines[name] = machine
        return machine

    def restart_agent(self, name: str) -> None:
        """A new agent process for a machine whose agent has ended; its runner is left alone."""
        machine = self.machines[name]
        ports = (machine.agent_port, machine.logs_port)
        machine.agent = self._agent(name, machine.state, machine.cpus, machine.memory, ports, machine.simulated)

    def restart_runner(self, name: str) -> None:
        """A new runner process for a machine whose runner has ended."""
        machine = self.machines[name]
        parts = (machine.cpus, machine.memory, machine.warm, machine.data, machine.gpus, machine.first_uid)
        machine.runner = self._runner(name, machine.state, *parts)

    def remove_machine(self, name: str) -> None:
        """Its processes have ended, and its objects are gone."""
        machine = self.machines.pop(name)
        machine.agent.stop()
        machine.runner.stop()
        self.cluster.run_kubectl("delete", "computenode", name, "--ignore-not-found")
        self.cluster.run_kubectl("delete", "lease", name, "-n", NAMESPACE, "--ignore-not-found")
        pod = ("pod", f"cyxwiz-agent-{name}", "-n", NAMESPACE)
        self.cluster.run_kubectl("delete", *pod, "--ignore-not-found", "--force", "--grace-period=0")
        self.cluster.run_kubectl("delete", "node", name)

    def _tell_address(self, name: str) -> None:
        """What a kubelet would report of the agent's Pod: the API server passes requests on to a Pod's own address."""
        address = reachable_address()
        if address != LOOPBACK:
            status = json.dumps({"status": {"podIP": address, "podIPs": [{"ip": address}]}})
            pod = ("pod", f"cyxwiz-agent-{name}", "-n", NAMESPACE)
            self.cluster.run_kubectl("patch", *pod, "--subresource=status", "--type=merge", "-p", status)

    def _runner(
        self,
        name: str,
        state: Path,
        cpus: int,
        memory: str,
        warm: int,
        data: Path | None,
        gpus: tuple[str, ...],
        first_uid: int,
    ) -> PlatformProcess:
        """As the chart starts it; a runner that may not give uids says so and goes on without."""
        command = [
            sys.executable,
            "-m",
            "cyxwiz_runner",
            "--state",
            str(state),
            "--cpus",
            str(cpus),
            "--warm",
            str(warm),
            "--memory",
            memory,
            "--uids",
            f"{first_uid}-{first_uid + UIDS_OF_A_MACHINE - 1}",
            "--remote",
            str(self.remote),
        ]
        if data is not None:
            command += ["--data-root", str(data)]
        for uuid in gpus:
            command += ["--warm-gpu", uuid]
        return PlatformProcess(f"runner-{name}", command, self.logs / f"runner-{name}.log")

    def _agent(
        self, name: str, state: Path, cpus: int, memory: str, ports: tuple[int, int], simulated: SimulatedGpus | None
    ) -> PlatformProcess:
        kubeconfig = self.cluster.kubeconfig_for_token(self.agent_token(name), self.folder / f"agent-{name}.kubeconfig")
        command = [sys.executable, "-m", "cyxwiz_agent", "--node", name, "--namespace", NAMESPACE]
        command += ["--state", str(state), "--kubeconfig", str(kubeconfig)]
        command += ["--cpus", str(cpus), "--memory", memory, "--port", str(ports[0])]
        command += ["--logs", f"{reachable_address()}:{ports[1]}"]
        environ = simulated.environ if simulated else None
        return PlatformProcess(f"agent-{name}", command, self.logs / f"agent-{name}.log", environ)

    def agent_token(self, node: str) -> str:
        """A token bound to the agent's Pod on that node, as a kubelet would project it."""
        bound = ["--bound-object-kind=Pod", f"--bound-object-name=cyxwiz-agent-{node}"]
        lifetime = f"--duration={TOKEN_LIFETIME}"
        return self.cluster.run_kubectl("create", "token", "cyxwiz-agent", "-n", NAMESPACE, lifetime, *bound).strip()

    def wait_machines(self) -> None:
        """Every machine's agent is ready to take jobs."""
        for machine in self.machines.values():
            wait_ready(machine.agent, machine.agent_port)

    def stop(self) -> None:
        """Nothing this object started runs any more."""
        for machine in self.machines.values():
            machine.agent.stop()
        for machine in self.machines.values():
            machine.runner.stop()
        if self.operator is not None:
            self.operator.stop()

    def apply(self, *documents: dict[str, Any]) -> None:
        """`kubectl apply` as admin."""
        self.cluster.run_kubectl("apply", "-f", "-", input=yaml.safe_dump_all(documents))

    def get(self, kind: str, name: str, namespace: str = "default") -> dict[str, Any]:
        """The object, as admin sees it. An empty dictionary when there is none."""
        text = self.cluster.run_kubectl("get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found")
        return json.loads(text) if text else {}

    def wait_for(
        self, kind: str, name: str, condition: Callable[[dict[str, Any]], bool], *, what: str, within_s: float = 60.0
    ) -> dict[str, Any]:
        """The object once `condition` holds. Raises PlatformError with its last status when it never does."""
        deadline = time.monotonic() + within_s
        while True:
            seen = self.get(kind, name)
            if condition(seen):
                return seen
            if time.monotonic() > deadline:
                status = json.dumps(seen.get("status"), indent=1)
                raise PlatformError(
                    f"{kind}/{name}: {what} did not come true within {within_s:.0f} s. Status: {status}"
                )
            time.sleep(0.1)


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_ready(process: PlatformProcess, port: int) -> None:
    """/readyz of `process` answers 200. Raises PlatformError with the reason it gave, or with its last words."""
    deadline = time.monotonic() + READY_WITHIN_S
    said = "nothing"
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
                return
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace").strip()
        except OSError as error:
            said = str(error)
        if not process.running or time.monotonic() > deadline:
            state = "is not ready" if process.running else "has ended"
            raise PlatformError(f"{process.name} {state}; it says: {said}. Its log ends:\n{process.last_words()}")
        time.sleep(0.1)


def reachable_address() -> str:
    """An address of this machine that the API server passes requests on to: it refuses loopback ones.

    127.0.0.1 where there is no other, or only one that the world could reach; then nothing is passed on.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; names the interface that would
            address = str(probe.getsockname()[0])
        except OSError:
            return LOOPBACK
    return LOOPBACK if ipaddress.ip_address(address).is_global else address


def agent_service() -> dict[str, Any]:
    """The chart's Service of the agents. No kubelet marks their Pods ready, so their addresses count as they are."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "cyxwiz-agent", "namespace": NAMESPACE},
        "spec": {
            "clusterIP": "None",
            "selector": AGENT_LABELS,
            "publishNotReadyAddresses": True,
            "ports": [{"name": "logs", "port": LOGS_PORT, "targetPort": "logs"}],
        },
    }


def _namespace(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def node_object(name: str, labels: dict[str, str]) -> dict[str, Any]:
    metadata = {"name": name, "labels": {"kubernetes.io/hostname": name, **labels}}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata}


def agent_pod(node: str, logs_port: int = LOGS_PORT) -> dict[str, Any]:
    """The agent's Pod as an object: no kubelet runs it, but tokens can be bound to it, and its Service finds it."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"cyxwiz-agent-{node}", "namespace": NAMESPACE, "labels": AGENT_LABELS},
        "spec": {
            "nodeName": node,
            "serviceAccountName": "cyxwiz-agent",
            # As a DaemonSet's: no kubelet ever marks the Node ready, and eviction would revoke the token.
            "tolerations": [{"operator": "Exists"}],
            "containers": [
                {"name": "agent", "image": "cyxwiz-agent", "ports": [{"name": "logs", "containerPort": logs_port}]}
            ],
        },
    }
