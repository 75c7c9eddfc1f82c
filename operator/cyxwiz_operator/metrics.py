"""Every Prometheus series of the operator. No label holds the name of a job, user or namespace.

What each means and which question it answers: docs/design/metrics.md.
"""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

WAITS_S = (0.1, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800, 7200, 86400)


class Metrics:
    """The series, in a registry of their own, so that tests do not share them."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        r = self._registry
        self.waiting = Gauge("cyxwiz_queue_jobs", "Jobs that wait for a place, by reason", ["reason"], registry=r)
        self.wait = Histogram(
            "cyxwiz_queue_wait_seconds",
            "From the moment a job began to wait to its binding, by the last reason it was told",
            ["reason"],
            buckets=WAITS_S,
            registry=r,
        )
        self.estimate_error = Histogram(
            "cyxwiz_start_estimate_error_seconds",
            "How far the start told last (status.scheduling.estimatedStart) was from the binding",
            ["confidence", "came"],
            buckets=WAITS_S,
            registry=r,
        )
        self.held = Gauge("cyxwiz_ledger_entries", "Writes that the watch has not shown back yet", registry=r)
        self.bind_latency = Histogram(
            "cyxwiz_bind_latency_seconds",
            "From the job's creation (whole seconds, by the API server's clock) to its first binding",
            buckets=WAITS_S,
            registry=r,
        )
        self.time_to_first_step = Histogram(
            "cyxwiz_time_to_first_step_seconds",
            "From the job's creation (whole seconds) to the first training step of its first attempt",
            buckets=WAITS_S,
            registry=r,
        )
        self.start_time = Histogram(
            "cyxwiz_start_seconds",
            "From a binding to the first training step of that attempt, by the clocks of operator and node",
            buckets=(0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60),
            registry=r,
        )
        self.passes = Counter("cyxwiz_passes", "Passes of the control loop that finished", registry=r)
        self.pass_failures = Counter("cyxwiz_pass_failures", "Passes that ended in an unexpected error", registry=r)
        self.decision_time = Histogram(
            "cyxwiz_decision_seconds",
            "Time of one pass from snapshot to decisions, without any request",
            buckets=(0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5),
            registry=r,
        )
        self.writes = Counter(
            "cyxwiz_api_writes", "Requests that change something, by kind and result", ["kind", "result"], registry=r
        )
        self.attempts = Counter("cyxwiz_attempts", "Attempts that ended, by outcome", ["outcome"], registry=r)
        self.preemptions = Counter("cyxwiz_preemptions", "Jobs told to leave for one of higher priority", registry=r)
        self.lost_training = Counter(
            "cyxwiz_lost_training_seconds",
            "Training since the last checkpoint of attempts that did not succeed, by outcome",
            ["outcome"],
            registry=r,
        )
        self.nodes = Gauge("cyxwiz_nodes", "ComputeNodes by phase", ["phase"], registry=r)
        self.unreadable = Gauge("cyxwiz_unreadable_jobs", "Jobs whose content cannot be read", registry=r)
        self.loss_gate = Gauge(
            "cyxwiz_loss_gate_shut", "1 while so many nodes are silent that none is given up", registry=r
        )

    def exposition(self) -> bytes:
        """The text format of Prometheus."""
        return generate_latest(self._registry)


def set_all(gauge: Gauge, values: Mapping[str, int]) -> None:
    """The gauge shows exactly these labels: what is not there any more reads nothing instead of its last value."""
    gauge.clear()
    for label, value in values.items():
        gauge.labels(label).set(value)
