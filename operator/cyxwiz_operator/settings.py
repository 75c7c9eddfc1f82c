"""Every setting of the operator with its default; the constants of the fence, which are no settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .reservation_pods import ReservationSettings

# E of the fence (docs/design/fence.md): D (1 + drift) + K <= E with D = 25 s and K = 10 s on the node's side.
LEASE_EXPIRY_S = 40.0
# A loss of this many nodes and this share of all within one E is taken for an outage of the API, not of nodes.
MASS_LOSS_NODES = 3
MASS_LOSS_SHARE = 0.55
# How long the operator's own requests must have succeeded before it believes in a mass loss after all.
MASS_LOSS_CALM_S = 300.0


@dataclass(frozen=True)
class Settings:
    """What `cyxwiz-operator --help` offers."""

    kubeconfig: Path | None = None
    """None signs in with the pod's service account."""
    namespace: str = "cyxwiz-system"
    """The system namespace: where agents keep their Leases."""
    health_port: int = 8080
    """Serves /healthz and /readyz."""
    metrics_port: int = 9090
    """Serves /metrics; the same number as the health port shares its server."""
    log_format: str = "text"
    """text or json."""
    log_level: str = "INFO"
    """Least severe level that is logged."""
    parallel_writes: int = 16
    """Writes in flight at a time: one API server on two cores takes no more than about 450 patches a second."""
    binds_per_pass: int = 1024
    """A pass costs CPU for every job and node, so a burst of jobs is bound in few."""
    bind_for_s: float = 1.0
    """When there is something else to write, or has been something to decide, binds of a pass that are not written
    after so long are decided anew: a cancel never waits for a burst of binds."""
    explained_jobs: int = 100
    """Waiting jobs whose explanation is kept up to date; later ones keep the one they got on arrival."""
    explanation_interval_s: float = 60.0
    """At most one write per waiting job in this time when only its explanation changes."""
    node_status_interval_s: float = 10.0
    """At most one write per ComputeNode in this time, but for changes of phase."""
    tolerated_taints: tuple[str, ...] = (
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
        "node.kubernetes.io/network-unavailable",
        "node.kubernetes.io/unschedulable",
        "nvidia.com/gpu",
        "cyxwiz.io/",
    )
    """Taint keys, or prefixes with a slash at the end, that keep no job away: those of GPU nodes and of nodes set aside
    for CyxWiz, those that a cordon puts beside itself, and those that doubt the kubelet, whom jobs do not need: whether
    a node lives is judged by its agent's Lease."""
    cordon_drains: bool = False
    """Whether a cordon alone makes jobs save a checkpoint and leave. `kubectl drain` leaves no other trace on a node:
    it cordons, and passes over the pods of DaemonSets. Not by default: who upgrades a pool may first cordon all of it.
    """
    preemption: bool = True
    """Whether jobs of higher priority may make others leave at all."""
    preemption_min_runtime_s: float = 60.0
    """A job that has trained for less is not made to leave."""
    reservations: ReservationSettings | None = None
    """How GPUs are reserved through Kubernetes; None: they are CyxWiz's own."""
    fair_share_interval_s: float = 60.0
    """At most one write of the namespaces' usage in this time."""
    batch_s: float = 0.002
    """Waits so long after a wake, so that changes which arrive together are decided together."""
    tick_s: float = 1.0
    """A pass at least so often: deadlines, backoffs and leases run out without an event."""
    sweep_interval_s: float = 60.0
    """How often finished jobs are listed for ttlSecondsAfterFinished."""
    stalled_after_s: float = 60.0
    """/healthz fails when no pass has finished for so long."""
