"""Filters and score once more, one node at a time and in plain Python: what the columns must agree with."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from cyxwiz_operator.clock import parse
from cyxwiz_operator.views import Demand, JobView, NodeView

USABLE = ("Healthy", "Degraded", "Unmonitored")


def here(node: NodeView, jobs: Sequence[JobView]) -> list[JobView]:
    """The jobs that hold capacity of the node."""
    return [job for job in jobs if job.holds_capacity and job.status.assignment.node == node.name]  # type: ignore[union-attr]


def free_devices(job: Demand, node: NodeView, jobs: Sequence[JobView]) -> list[str]:
    """UUIDs of the devices the job could have."""
    found = []
    for gpu in node.gpus:
        on_it = [other for other in here(node, jobs) if gpu.uuid in other.status.assignment.gpus]  # type: ignore[union-attr]
        whole = any(other.gpu_memory_mib is None for other in on_it)
        free_mib = 0 if whole else gpu.memory_total_mi_b - sum(other.gpu_memory_mib or 0 for other in on_it)
        fits = not on_it if job.gpu_memory_mib is None else free_mib >= job.gpu_memory_mib
        if gpu.health in USABLE and fits:
            found.append(gpu.uuid)
    return found


def first_refusal(job: Demand, node: NodeView, online: bool, jobs: Sequence[JobView], wall: datetime) -> str | None:
    """The reason of the first check the node fails; None when it can take the job."""
    mine = here(node, jobs)
    known = node.node.status.inventory is not None
    large = [gpu for gpu in node.gpus if gpu.memory_total_mi_b >= (job.gpu_memory_mib or 0)]
    checks = {
        "JobType": not node.node.spec.job_types or job.job_type in node.node.spec.job_types,
        "NodeSelector": all(node.labels.get(key) == value for key, value in job.node_selector),
        "TooFewGPUs": not known or len(node.gpus) >= job.gpus,
        "GPUMemoryTooSmall": not known or len(large) >= job.gpus,
        "TooFewCPUs": not known or node.cpus >= job.cpus,
        "TooLittleMemory": not known or node.memory_mib >= job.memory_mib,
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
                gpu.memory_total_mi_b if other.gpu_memory_mib is None else other.gpu_memory_mib for other in on_it
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
