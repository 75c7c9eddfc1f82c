"""Filters, score and choice once more, one node at a time and in plain Python: what the columns must agree with."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from cyxwiz_crds import Assignment
from cyxwiz_operator.clock import Now, parse
from cyxwiz_operator.node_table import own_demand
from cyxwiz_operator.scheduling.reserving import DEFAULT_RULES, Reservations
from cyxwiz_operator.scheduling.tenants import Tenant, longest_run_s, tenants_of
from cyxwiz_operator.views import Demand, JobView, NodeView

from .builders import make_table

USABLE = ("Healthy", "Degraded", "Unmonitored")
NEVER_REASONS = ("JobType", "NodeSelector", "TooFewGPUs", "GPUMemoryTooSmall", "TooFewCPUs", "TooLittleMemory")
FULL_REASONS = ("TooManyJobs", "NoFreeGPU", "NoFreeCPU", "NoFreeMemory")


def here(node: NodeView, jobs: Sequence[JobView]) -> list[JobView]:
    """The jobs that hold capacity of the node."""
    return [job for job in jobs if job.holds_capacity and job.status.assignment.node == node.name]  # type: ignore[union-attr]


def free_devices(job: Demand, node: NodeView, jobs: Sequence[JobView]) -> list[str]:
    """UUIDs of the devices the job could have."""
    found = []
    for gpu in node.gpus:
        on_it = [other for other in here(node, jobs) if gpu.uuid in other.status.assignment.gpus]  # type: ignore[union-attr]
        whole = any(other.gpu_memory_mib is None for other in on_it)
        free_mib = 0 if whole else gpu.memory_total_mi_b - sum(_charge(other.demand, node) for other in on_it)
        need_mib = _charge(job, node) if on_it else job.gpu_memory_mib
        fits = not on_it if job.gpu_memory_mib is None else free_mib >= (need_mib or 0)
        if gpu.health in USABLE and fits:
            found.append(gpu.uuid)
    return found


def _charge(job: Demand, node: NodeView) -> int:
    """What a job that shares a device of the node is charged."""
    return (job.gpu_memory_mib or 0) + node.gpu_context_mib


def first_refusal(job: Demand, node: NodeView, online: bool, jobs: Sequence[JobView], wall: datetime) -> str | None:
    """The reason of the first check the node fails; None when it can take the job."""
    mine = here(node, jobs)
    known = node.node.status.inventory is not None
    large = [gpu for gpu in node.gpus if gpu.memory_total_mi_b >= (job.gpu_memory_mib or 0)]
    checks = {
        "JobType": not node.node.spec.job_types or job.job_type in node.node.spec.job_types,
        "NodeSelector": all(node.labels.get(key) == value for key, value in job.node_selector),
        "WeightsElsewhere": job.weights_node in (None, node.name),
        "TooFewGPUs": not known or len(node.gpus) >= job.gpus,
        "GPUMemoryTooSmall": not known or len(large) >= job.gpus,
        "TooFewCPUs": not known or node.cpus >= job.cpus,
        "TooLittleMemory": not known or node.memory_mib >= job.memory_mib,
        "GPUMode": job.gpus == 0 or not node.reserves,
        "Offline": online and known,
        "Unschedulable": not node.node.spec.unschedulable,
        "BackingOff": node.name not in job.excluded,
        "TooManyJobs": len(mine) < (1 if _on_probation(node, wall) else node.max_jobs or 1000),
        "NoFreeGPU": len(free_devices(job, node, jobs)) >= job.gpus,
        "NoFreeCPU": node.cpus - sum(other.job.spec.resources.cpus for other in mine) >= job.cpus,
        "NoFreeMemory": node.memory_mib - sum(other.memory_mib for other in mine) >= job.memory_mib,
    }
    return next((reason for reason, passes in checks.items() if not passes), None)


def score(job: Demand, node: NodeView, jobs: Sequence[JobView], wall: datetime) -> float:
    """docs/design/scoring.md, word for word."""
    total = 0.4 * _reputation(node, wall) + 0.3 * _availability(job, node, jobs)
    total += 0.2 * _capability(job, node) + 0.1 * _uptime(node, wall)
    return total + (1.0 if node.name == job.checkpoint_node else 0.0)


def _reputation(node: NodeView, wall: datetime) -> float:
    good, weights = 0.9 * 2, 2.0
    for outcome in node.outcomes:
        weight = 0.5 ** ((wall - parse(outcome.ended_at)).total_seconds() / (3 * 24 * 3600))
        good += weight if outcome.good else 0.0
        weights += weight
    return good / weights


def _on_probation(node: NodeView, wall: datetime) -> bool:
    newest = node.outcomes[-2:]
    recent = [each for each in newest if (wall - parse(each.ended_at)).total_seconds() <= 24 * 3600]
    return len(recent) == 2 and not any(each.good for each in recent)


def _availability(job: Demand, node: NodeView, jobs: Sequence[JobView]) -> float:
    mine = here(node, jobs)
    parts = [
        1 - sum(other.job.spec.resources.cpus for other in mine) / node.cpus if node.cpus else 0.0,
        1 - sum(other.memory_mib for other in mine) / node.memory_mib if node.memory_mib else 0.0,
    ]
    if job.gpus:
        usable = [gpu for gpu in node.gpus if gpu.health in USABLE]
        total_mib = sum(gpu.memory_total_mi_b for gpu in usable)
        free_mib = 0
        for gpu in usable:
            on_it = [other for other in mine if gpu.uuid in other.status.assignment.gpus]  # type: ignore[union-attr]
            free_mib += gpu.memory_total_mi_b
            free_mib -= sum(
                gpu.memory_total_mi_b if other.gpu_memory_mib is None else _charge(other.demand, node)
                for other in on_it
            )
        parts.append(free_mib / total_mib if total_mib else 0.0)
    return max(0.0, min(parts))


def _capability(job: Demand, node: NodeView) -> float:
    inventory = node.node.status.inventory
    ready = 0.2 if inventory and inventory.warm_trainers else 0.0
    ready += 0.1 if any(each.measured and each.measured.data == job.data for each in node.outcomes) else 0.0
    if job.gpus == 0:
        return 0.4 * min(node.cpus / 64, 1) + 0.3 * (not node.gpus) + ready
    largest = max((gpu.memory_total_mi_b for gpu in node.gpus), default=0)
    fit = largest / (80 * 1024) if job.gpu_memory_mib is None else job.gpu_memory_mib / max(largest, 1)
    value = 0.4 * min(node.compute_capability / 10, 1) + 0.3 * min(fit, 1) + ready
    return value * (0.5 if any(gpu.health == "Degraded" for gpu in node.gpus) else 1)


def _uptime(node: NodeView, wall: datetime) -> float:
    week_s = 7 * 24 * 3600
    ages = [((wall - parse(span.since)).total_seconds(), (wall - parse(span.until)).total_seconds())
            for span in node.earlier_online]  # fmt: skip
    ages += [((wall - parse(node.online_since)).total_seconds(), 0.0)] if node.online_since else []
    online_s = sum(max(0.0, min(since_s, week_s) - until_s) for since_s, until_s in ages)
    return min(online_s, week_s) / week_s


@dataclass(frozen=True)
class Choice:
    """What became of one job of the queue."""

    job: str
    node: str | None
    gpus: tuple[str, ...] = ()
    holds: str | None = None


def choices(
    queue: Sequence[JobView], nodes: Sequence[NodeView], offline: Collection[str], running: Sequence[JobView], now: Now
) -> list[Choice]:
    """The queue in order, every node judged anew for every job. Which places are kept is asked of `Reservations`."""
    names = sorted(node.name for node in nodes)
    by_name = {node.name: node for node in nodes}
    busy = list(running)
    tenants = tenants_of(running, make_table(*nodes), now)
    kept = Reservations(tenants, DEFAULT_RULES, now)
    found: list[Choice] = []
    for job in queue:
        demand, most_s = own_demand(job), longest_run_s(job, now)
        refusals = {name: first_refusal(demand, by_name[name], name not in offline, busy, now.wall) for name in names}
        fitting = [row for row, name in enumerate(names) if refusals[name] is None]
        fullest = {row: _fullest_first(demand, by_name[names[row]], busy) for row in fitting}
        free = [row for row in fitting if not kept.forbids(row, demand, fullest[row], most_s)]
        if free:
            row = min(free, key=lambda row: (-round(score(demand, by_name[names[row]], busy, now.wall), 9), names[row]))
            node = by_name[names[row]]
            uuids = [gpu.uuid for gpu in node.gpus]
            devices = kept.devices(row, demand, fullest[row], most_s)
            given = tuple(uuids[device] for device in devices)
            assert len(given) == demand.gpus
            tenants[row].append(Tenant(job, row, demand, tuple(devices), most_s, measured=False, ordered=False))
            bound = Assignment(id=f"{job.uid}-1", node=node.name, gpus=list(given))
            busy.append(job.with_status(job.status.model_copy(update={"assignment": bound, "attempt": 1})))
            found.append(Choice(job.key, node.name, given))
            continue
        could = [refusal in FULL_REASONS for refusal in refusals.values()]
        never = bool(names) and all(refusal in NEVER_REASONS for refusal in refusals.values())
        table = make_table(*nodes, jobs=busy, offline=offline)
        full = [] if never else [row for row, lacks in enumerate(could) if lacks]
        hold = kept.keep(job, demand, full, table)
        found.append(Choice(job.key, None, holds=names[hold.row] if hold else None))
    return found


def _fullest_first(job: Demand, node: NodeView, jobs: Sequence[JobView]) -> list[int]:
    """The devices that the job could have, by their place on the node."""
    if job.gpus == 0:
        return []
    uuids = [gpu.uuid for gpu in node.gpus]
    left = {uuid: _free_mib(uuid, node, jobs) for uuid in free_devices(job, node, jobs)}
    return [uuids.index(uuid) for uuid in sorted(left, key=lambda uuid: left[uuid])]


def _free_mib(uuid: str, node: NodeView, jobs: Sequence[JobView]) -> int:
    """Memory of the device that no job was given; whole devices are only ever offered untouched."""
    total = next(gpu.memory_total_mi_b for gpu in node.gpus if gpu.uuid == uuid)
    on_it = [job for job in here(node, jobs) if uuid in job.status.assignment.gpus]  # type: ignore[union-attr]
    return total - sum(_charge(job.demand, node) for job in on_it)
