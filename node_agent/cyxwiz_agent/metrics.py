"""The agent's own Prometheus series, none of them labelled by job; those of jobs and devices are in `series`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class Metrics:
    """Every series of one agent, in its own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.started = Counter("cyxwiz_agent_jobs_started_total", "Jobs handed to the runner", registry=self.registry)
        self.ended = Counter(
            "cyxwiz_agent_jobs_ended_total",
            "Jobs ended, by state and reason",
            ["state", "reason"],
            registry=self.registry,
        )
        self.reports = Counter(
            "cyxwiz_agent_reports_total", "Execution reports accepted, by state", ["state"], registry=self.registry
        )
        self.refused = Counter(
            "cyxwiz_agent_reports_refused_total", "Execution reports refused by the API server", registry=self.registry
        )
        self.jobs = Gauge("cyxwiz_agent_jobs", "Jobs assigned to this node", registry=self.registry)
        self.lease_epoch = Gauge("cyxwiz_agent_lease_epoch", "Acquisitions of the node's Lease", registry=self.registry)
