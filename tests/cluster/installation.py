"""The chart installed on the machine, and what a person would do with kubectl and helm."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from cyxwiz_devcluster import find_or_build
from cyxwiz_devcluster.build import cache_root
from cyxwiz_devcluster.machine import FIRST_NODE, Images, Machine
from cyxwiz_platform.platform import CHART, NAMESPACE
from cyxwiz_platform.simulated_gpus import SimulatedGpus, build
from cyxwiz_platform.simulated_gpus.library import FILE_VARIABLE
from tests.thread import digits, finished, status_of

ROOT = Path(__file__).parents[2]
DEBIAN_PYTHON = "3.11"
GPUS = 8
RELEASE = "cyxwiz"
GPU = "nvidia.com/gpu"
WHOLE_RUNNER = os.environ.get("CYXWIZ_WHOLE_RUNNER") == "1"
"""The runner's image has torch, as users' have; by default it is mounted, which spares 5 GB of copies."""
PROBE = "/app/cyxwiz_probe/__init__.py"
Object = dict[str, Any]


def say(line: str) -> None:
    """A line of the log that the run leaves."""
    print(line, file=sys.stderr, flush=True)


def build_images(images: Images) -> list[str]:
    """The chart's images. The runner's comes without torch, which `runner_dependencies` mounts, unless WHOLE_RUNNER."""
    base = {"BASE_IMAGE": images.base()}
    agent = ROOT / "Dockerfile.agent"
    probe = Path(__file__).parent / "probe"
    # Debian's buildah does not take the default of an argument for another stage's name.
    arguments = base | {"RUNNER_DEPENDENCIES": "runner-dependencies" if WHOLE_RUNNER else "runtime"}
    runner = images.build("localhost/cyxwiz-runner:dev", agent, ROOT, target="runner", arguments=arguments)
    return [
        images.build("localhost/cyxwiz-operator:dev", ROOT / "Dockerfile.operator", ROOT, arguments=base),
        images.build("localhost/cyxwiz-agent:dev", agent, ROOT, target="agent", arguments=base),
        runner,
        images.build("localhost/cyxwiz-probe:dev", probe / "Dockerfile", probe),
    ]


def runner_dependencies() -> Path:
    """A folder with the packages of locks/runner.lock for Debian's Python; made once for each lock."""
    lock = ROOT / "locks" / "runner.lock"
    folder = cache_root() / f"runner-{DEBIAN_PYTHON}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    if not (folder / ".complete").exists():
        command = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--quiet", "--target", str(folder)]
        command += ["--python-version", DEBIAN_PYTHON, "--require-hashes", "--no-deps", "-r", str(lock)]
        subprocess.run(command, check=True)
        (folder / ".complete").touch()
    return folder


class Installation:
    """A release of the chart on the machine."""

    def __init__(self, machine: Machine, gpus: int = GPUS, **further: Any) -> None:
        """On every node that the machine has by now. `further` are values of `nodes`, beside those of every test."""
        self.machine = machine
        self.began = time.monotonic()
        """When it was installed, of the monotonic clock."""
        self._folder = f"{gpus}-gpus-{len(machine.nodes)}-nodes"
        self.simulated_on = {node: self._simulated(node, gpus) for node in machine.nodes}
        self.values = machine.folder / f"{self._folder}.yaml"
        values = self._values()
        values["nodes"] |= further
        self.values.write_text(yaml.safe_dump(values))

    @property
    def simulated(self) -> SimulatedGpus:
        """The GPUs of the first node."""
        return self.simulated_on[FIRST_NODE]

    def _simulated(self, node: str, gpus: int) -> SimulatedGpus:
        folder = self.machine.local_of(node) / self._folder / "gpus"
        folder.mkdir(parents=True)
        return SimulatedGpus(folder / "gpus.json", gpus)

    def _values(self) -> Object:
        """CPU training beside eight simulated GPUs, on whatever this machine is."""
        library, local = build(), self.machine.local / self._folder
        torch = {} if WHOLE_RUNNER else {"dependencies": runner_dependencies()}
        return {
            "image": {"registry": "localhost", "tag": "dev", "pullPolicy": "Never"},
            "operator": {
                "logFormat": "text",
                # Its node is cordoned and drained, and the operator is to stay: the other one is lost to the API.
                "tolerations": [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}],
                "nodeSelector": {"kubernetes.io/hostname": FIRST_NODE},
            },
            "nodes": {
                "gpu": {"access": "none"},
                "capacity": {"cpus": 2, "memory": "6Gi"},
                "state": {"hostPath": str(local / "state")},
                "sharedMemory": "256Mi",
                "extraVolumes": [
                    {"name": name, "hostPath": {"path": str(path), "type": "Directory"}}
                    for name, path in {**torch, "library": library, "gpus": local / "gpus"}.items()
                ],
            },
            "agent": {
                "extraEnv": [
                    {"name": FILE_VARIABLE, "value": "/gpus/gpus.json"},
                    {"name": "LD_LIBRARY_PATH", "value": "/simulated"},
                ],
                "extraVolumeMounts": [
                    {"name": "library", "mountPath": "/simulated", "readOnly": True},
                    {"name": "gpus", "mountPath": "/gpus", "readOnly": True},
                ],
            },
            "runner": {
                "image": {"repository": "cyxwiz-probe"},
                "extraVolumeMounts": [{"name": name, "mountPath": "/plugins", "readOnly": True} for name in torch],
            },
        }

    def helm(self, *arguments: str, within_s: float = 300) -> str:
        """What helm printed."""
        command = [str(find_or_build("helm")), "--kubeconfig", str(self.machine.kubeconfig)]
        command += ["--namespace", NAMESPACE, *arguments]
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=within_s)
        assert answer.returncode == 0, answer.stderr + answer.stdout
        return answer.stdout

    def install(self, *settings: str) -> str:
        """What `helm install` printed with these `--set` values, the pods being ready."""
        self.began = time.monotonic()
        flags = ["--create-namespace", "--values", str(self.values), "--wait", "--timeout", "5m"]
        flags += [flag for setting in settings for flag in ("--set", setting)]
        return self.helm("install", RELEASE, str(CHART), *flags, within_s=360)

    def upgrade(self, settings: str) -> None:
        """The chart has these values too, and the operator that was started with them is ready."""
        self.helm("upgrade", RELEASE, str(CHART), "--reset-then-reuse-values", "--set", settings)
        self.system("rollout", "status", "deployment/cyxwiz-operator", "--timeout=120s", timeout=130)

    def offer_gpus(self, node: str, count: int) -> None:
        """The node's kubelet gives so many of its simulated GPUs to pods, until the machine ends."""
        plugin = [sys.executable, "-m", "cyxwiz_platform.simulated_gpus.device_plugin"]
        plugin += self.simulated_on[node].uuids[:count]
        self.machine.run_beside(f"device-plugin-{self._folder}", plugin, node)
        given = str(count)
        self.wait_for("node", node, lambda seen: status_of(seen)["allocatable"].get(GPU) == given, what="giving GPUs")

    def uninstall(self) -> None:
        """Neither the release nor its namespace, its resources or any job is there; also when it was not."""
        if RELEASE in self.helm("list", "--short").split():
            for namespace in self.kubectl("get", "namespaces", "-o", "name").split():
                name = namespace.partition("/")[2]
                self.kubectl("-n", name, "delete", "trainingjobs", "--all", "--timeout=60s", check=False)
            self.helm("uninstall", RELEASE, "--wait", "--timeout", "3m")
        self.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s", timeout=130)
        crds = ("trainingjobs.cyxwiz.io", "computenodes.cyxwiz.io")
        self.kubectl("delete", "crd", *crds, "--ignore-not-found", "--timeout=60s", timeout=70)

    def kubectl(self, *arguments: str, **options: Any) -> str:
        return self.machine.run_kubectl(*arguments, **options)

    def system(self, *arguments: str, **options: Any) -> str:
        """kubectl in the release's namespace."""
        return self.kubectl("-n", NAMESPACE, *arguments, **options)

    def apply(self, job: Object) -> None:
        self.kubectl("apply", "-f", "-", input=yaml.safe_dump(job))

    def cancel(self, name: str) -> None:
        self.kubectl("patch", "tj", name, "--type=merge", "-p", '{"spec":{"cancel":true}}')

    def replace_pod(self, node: str = FIRST_NODE) -> None:
        """The node's pod is gone; its DaemonSet makes another."""
        self.system("delete", self.node_pod(node), "--timeout=120s", timeout=130)

    def get(self, kind: str, name: str, *flags: str) -> Object:
        """The object; empty when there is none."""
        text = self.kubectl("get", kind, name, "--ignore-not-found", "-o", "json", *flags)
        return json.loads(text) if text else {}

    def wait_for(
        self,
        kind: str,
        name: str,
        condition: Callable[[Object], bool],
        *,
        what: str,
        within_s: float = 120,
        flags: tuple[str, ...] = (),
    ) -> Object:
        """The object once `condition` holds; fails with its status and the pods' logs when it never does."""
        deadline = time.monotonic() + within_s
        while not condition(seen := self.get(kind, name, *flags)):
            if time.monotonic() > deadline:
                say(self.system("get", "pods", "-o", "wide"))
                for pod in ("deployment/cyxwiz-operator", "daemonset/cyxwiz-node"):
                    say(self.system("logs", pod, "--all-containers", "--tail=40", check=False))
                raise AssertionError(f"{kind}/{name}: not {what}: {json.dumps(seen.get('status'), indent=1)}")
            time.sleep(0.2)
        return seen

    def node_pod(self, node: str = FIRST_NODE) -> str:
        """Name of that node's pod."""
        which = ("-l", "app.kubernetes.io/component=node", "--field-selector", f"spec.nodeName={node}")
        return self.system("get", "pods", *which, "-o", "name").strip()


def seen_by_probe(release: Installation, name: str) -> Object:
    """What hostile code found that ran as a job of that name."""
    release.apply(digits(name, dataset={"uri": "probe://token"}))
    ended = release.wait_for("tj", name, finished, what="finished")
    text = _string_with("probe {", status_of(ended))
    assert text, json.dumps(status_of(ended))
    return json.JSONDecoder().raw_decode(text.partition("probe ")[2])[0]


def _string_with(text: str, value: object) -> str:
    """The first string in there that holds `text`; empty when none does."""
    if isinstance(value, str):
        return value if text in value else ""
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((found for child in children if (found := _string_with(text, child))), "")
