"""What a ComputeNode's status should say: the operator's part of it, as a pure function."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cyxwiz_crds import ComputeNodeStatus, Condition, ConditionType, NodePhase, Reason, upsert
from cyxwiz_crds.compute_node import Allocation, Gpu, Outcome, Reputation

from .clock import Now
from .node_table import NodeTable
from .reputation import NO_SPEEDS, faults_in_a_row, is_on_probation, merged, score_of
from .speeds import Speeds
from .uptime import after_a_break
from .views import Liveness, NodeView


def review_node(
    node: NodeView,
    liveness: Liveness,
    allocation: Allocation,
    outcomes: Iterable[Outcome],
    shut: bool,
    now: Now,
    typical: Speeds = NO_SPEEDS,
) -> ComputeNodeStatus:
    """The node's status as it should be; equal to the present one when nothing has changed.

    `outcomes` are those to be found in the jobs now, `shut` is true while too many nodes are silent to believe it,
    `typical` is the fleet's speed, as of when this node is looked at.
    """
    status = node.node.status
    phase = phase_of(node, liveness)
    up = phase in (NodePhase.ONLINE, NodePhase.UNSCHEDULABLE, NodePhase.DRAINING)
    known = merged(node.outcomes, outcomes)
    score = f"{score_of(known, now.wall, typical):.2f}"
    probation = _probation(known, now)
    summary = _summary(node, phase, allocation, f"{score} from {len(known)} attempt{'s'[: len(known) != 1]}", probation)
    broken = status.online_since is not None and not up
    said = [_ready(up, liveness, shut, summary, node), *_driver(node), *_exclusive(node)]
    return status.model_copy(
        update={
            "phase": phase,
            "conditions": list(upsert(status.conditions, said, now.timestamp)),
            "allocation": allocation,
            "reputation": Reputation(score=score, probation=probation, outcomes=known),
            "earlier_online": after_a_break(status.online_since, node.earlier_online, now.wall, now.timestamp)
            if broken
            else list(node.earlier_online),
            "online_since": (status.online_since or now.timestamp) if up else None,
            "summary": summary,
        }
    )


class InUse(NamedTuple):
    """What jobs hold of a node, in the words of `Allocation`."""

    jobs: int
    gpus: int
    cpus: int
    memory_mi_b: int


def allocations(nodes: NodeTable) -> dict[str, InUse]:
    """Node to what its jobs hold."""
    gpus = (nodes.gpu_jobs > 0).sum(axis=1)
    columns = (nodes.jobs, gpus, nodes.cpus - nodes.free_cpus, nodes.memory_mib - nodes.free_memory_mib)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return {name: InUse(*row) for name, row in zip(nodes.names, rows, strict=True)}


def phase_of(node: NodeView, liveness: Liveness) -> str:
    """The phase that the node's status should say."""
    if liveness is Liveness.UNSURE:
        # Neither seen alive nor silent for long enough: what was said last stands.
        return node.node.status.phase or NodePhase.OFFLINE
    if liveness is not Liveness.ONLINE:
        return NodePhase.OFFLINE
    if node.draining_because:
        return NodePhase.DRAINING
    return NodePhase.UNSCHEDULABLE if node.closed_because else NodePhase.ONLINE


def _ready(up: bool, liveness: Liveness, shut: bool, summary: str, node: NodeView) -> Condition:
    if up:
        reason, message = "LeaseRenewed", "Its agent renews its Lease."
    elif liveness is Liveness.EXPIRED and shut:
        reason = Reason.RATE_OF_LOSS
        message = "Silent together with most other nodes: its jobs stay with it until the API server is seen to work."
    else:
        reason, message = "LeaseExpired", summary
    generation = node.node.metadata.generation or None
    return _condition(ConditionType.READY, up, reason, message, generation)


def _driver(node: NodeView) -> list[Condition]:
    inventory = node.node.status.inventory
    if inventory is None:
        return []
    ill = [gpu for gpu in node.gpus if gpu.health not in ("Healthy", "Unmonitored", "InUse")]
    generation = node.node.metadata.generation or None
    if ill:
        words = _in_words(ill)
        return [_condition(ConditionType.DRIVER_HEALTHY, False, "GPUUnhealthy", words, generation)]
    if not node.gpus:
        words = inventory.driver_message or "It has no GPU."
        return [_condition(ConditionType.DRIVER_HEALTHY, True, "NoGPU", words, generation)]
    return [_condition(ConditionType.DRIVER_HEALTHY, True, "Healthy", f"{len(node.gpus)} GPUs healthy.", generation)]


def _exclusive(node: NodeView) -> list[Condition]:
    """Whether others use its GPUs, from the first time on that they did."""
    taken = [gpu for gpu in node.gpus if gpu.health == "InUse"]
    generation = node.node.metadata.generation or None
    if taken:
        words = f"{_in_words(taken)}. No job is placed there until that is over."
        return [_condition(ConditionType.GPUS_EXCLUSIVE, False, "ForeignUse", words, generation)]
    if all(each.type != ConditionType.GPUS_EXCLUSIVE for each in node.node.status.conditions):
        return []
    return [_condition(ConditionType.GPUS_EXCLUSIVE, True, "NoForeignUse", "Nobody else uses its GPUs.", generation)]


def _in_words(gpus: Iterable[Gpu]) -> str:
    return ", ".join(
        f"{gpu.uuid} is {gpu.health}" + (f" ({gpu.health_reason})" if gpu.health_reason else "") for gpu in gpus
    )


def _condition(type_: str, holds: bool, reason: str, message: str, generation: int | None) -> Condition:
    return Condition(
        type=type_,
        status="True" if holds else "False",
        reason=reason,
        message=message[:1024],
        observed_generation=generation,
    )


def _probation(known: Sequence[Outcome], now: Now) -> str | None:
    faults = faults_in_a_row(known, now.wall)
    if not is_on_probation(known, now.wall):
        return None
    return f"Its last {faults} attempts failed by its fault: one job at a time until one succeeds, or for a day."


def _summary(node: NodeView, phase: str, allocation: Allocation, score: str, probation: str | None) -> str:
    """1 job: 1 of 2 GPUs, 2 of 8 CPUs. Reputation 0.93 from 4 attempts."""
    if phase == NodePhase.OFFLINE:
        return "Its agent does not renew its Lease: is the agent running, and can it reach the API server?"
    plural = "s" if allocation.jobs != 1 else ""
    parts = [f"{allocation.cpus} of {node.cpus} CPUs"]
    if node.gpus:
        parts.insert(0, f"{allocation.gpus} of {len(node.gpus)} GPUs")
    text = f"{allocation.jobs} job{plural}: {', '.join(parts)}."
    if phase == NodePhase.DRAINING:
        text += f" Its jobs are told to leave: {node.draining_because}."
    elif phase == NodePhase.UNSCHEDULABLE:
        text += f" Takes no new jobs: {node.closed_because}."
    text = f"{text} Reputation {score}."
    return f"{text} {probation}" if probation else text
