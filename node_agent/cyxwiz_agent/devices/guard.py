"""Foreign use of the node's GPUs: pods that hold them through Kubernetes, processes that are not the runner's.

A guard and no lock: it sees what has begun already. It keeps further jobs away from such a device and says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from cyxwiz_agent.pod_resources import Holding
from cyxwiz_protocol.runner_api import Snapshot

from .health import Health
from .inventory import Devices

IN_USE = "InUse"
CROWDED_LOOKS = 2
"""A process that has just ended, or one that takes another's place, may be counted twice in one look."""
MIG_PREFIX = "nvidia.com/mig-"


@dataclass(frozen=True)
class Guard:
    """What looks have shown so far."""

    resource: str
    """What pods ask for to get a GPU, such as nvidia.com/gpu."""
    crowded_looks: Mapping[str, int] = field(default_factory=dict[str, int])
    """UUID to looks in a row that showed more processes than the runner has there, while no job was."""

    def after(self, devices: Devices, runner: Snapshot | None) -> Guard:
        """The guard after one more look at the driver. Without the runner's word nobody is accused."""
        counted: dict[str, int] = {}
        for device in devices.known:
            reading = device.reading
            allowed = None if runner is None else of_runner(reading.uuid, runner)
            if allowed is None or reading.processes is None or reading.processes <= allowed:
                continue
            counted[reading.uuid] = self.crowded_looks.get(reading.uuid, 0) + 1
        return replace(self, crowded_looks=counted)

    def foreign(self, devices: Devices, holdings: Sequence[Holding]) -> dict[str, str]:
        """UUID to who else uses the device."""
        uuids = [device.reading.uuid for device in devices.known]
        found = {
            uuid: "processes that are not CyxWiz's compute on it"
            for uuid in uuids
            if self.crowded_looks.get(uuid, 0) >= CROWDED_LOOKS
        }
        for holding in holdings:
            names = {device.partition("::")[0] for device in holding.devices}  # a plugin that shares adds ::<number>
            held = [uuid for uuid in uuids if uuid in names]
            is_gpu = holding.resource == self.resource or holding.resource.startswith(MIG_PREFIX)
            if held:
                found |= dict.fromkeys(held, f"pod {holding.key} holds it through Kubernetes")
            elif is_gpu:  # by an index: which one it is the kubelet does not say
                found |= dict.fromkeys(uuids, f"pod {holding.key} holds a GPU of this node through Kubernetes")
        return found


def of_runner(uuid: str, runner: Snapshot) -> int | None:
    """How many processes the runner may have on the device; None while a job has it.

    How many a job has is its own affair: its step is compiled in others, and its code may begin more.
    """
    if any(uuid in job.gpus and job.state != "Reaped" for job in runner.jobs):
        return None
    return int(uuid in (runner.warm_gpus or ()))


def in_use(devices: Devices, foreign: Mapping[str, str]) -> Devices:
    """The devices, of which those that others use are for no job."""
    known = (
        replace(device, health=Health(IN_USE, foreign[device.reading.uuid]))
        if device.reading.uuid in foreign and device.health.usable
        else device
        for device in devices.known
    )
    return replace(devices, known=tuple(known))
