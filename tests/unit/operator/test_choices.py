"""The planner keeps verdicts and scores from job to job; what it chooses is what judging everything anew would choose.

CYXWIZ_CASES=100000 pytest tests/unit/operator/test_choices.py tries as many random queues instead of 1,000.
"""

from __future__ import annotations

import os
import random
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from cyxwiz_crds import Assignment, Execution
from cyxwiz_operator.scheduling.planning import Queued, plan
from cyxwiz_operator.views import JobView, NodeView

from . import reference
from .builders import NOW, ago, make_job, make_node, make_table

CASES = int(os.environ.get("CYXWIZ_CASES", "1000"))
SLICES = 10
NAMES = "abcdef"


@cache
def some_nodes() -> dict[str, list[NodeView]]:
    """Name to nodes of that name, few and alike enough for ties."""
    draw = random.Random(1)
    return {name: [_node(draw, name) for _ in range(40)] for name in NAMES}


@cache
def some_jobs() -> list[JobView]:
    draw = random.Random(2)
    return [_job(draw, f"job-{number}") for number in range(200)]


@pytest.mark.parametrize("part", range(SLICES))
def test_choices_are_those_of_the_plain_reference(part: int) -> None:
    for case in range(part, CASES, SLICES):
        draw = random.Random(case)
        nodes = [draw.choice(some_nodes()[name]) for name in draw.sample(NAMES, draw.randint(1, len(NAMES)))]
        offline = {node.name for node in nodes if draw.random() < 0.1}
        jobs = draw.sample(some_jobs(), draw.randint(1, 12))
        held = draw.randint(0, len(jobs) // 2)
        # What runs was placed by an earlier plan, so that it fits.
        earlier = plan([Queued(job, frozenset()) for job in jobs[:held]], make_table(*nodes), NOW).placements
        running = [_started(draw, each.job, each.node, each.gpus) for each in earlier]
        queue = draw.choices(jobs[held:], k=draw.randint(1, 12)) if draw.random() < 0.5 else jobs[held:]
        queue = [_renamed(job, number) for number, job in enumerate(queue)]  # the same demand again and again
        made = plan(
            [Queued(job, frozenset()) for job in queue],
            make_table(*nodes, jobs=running, offline=offline),
            NOW,
            running=running,
        )
        chosen = [reference.Choice(each.job.key, each.node, each.gpus) for each in made.placements]
        chosen += [reference.Choice(each.job.key, None, holds=each.holds) for each in made.waiting]
        expected = reference.choices(queue, nodes, offline, running, NOW)
        assert sorted(chosen, key=_key) == sorted(expected, key=_key), f"case {case}"


def _key(choice: reference.Choice) -> str:
    return choice.job


def _node(draw: random.Random, name: str) -> NodeView:
    outcomes = [{"job": "o", "good": draw.random() < 0.5, "endedAt": ago(0)}] if draw.random() < 0.3 else []
    return make_node(
        name,
        gpus=draw.choice([0, 1, 2, 4]),
        gpu_memory_mib=draw.choice([16384, 81920]),
        gpu_context_mib=draw.choice([0, 1024]),
        gpu_mode=draw.choice([None, None, "dedicated", "reserve"]),
        gpu_health=draw.choice(["Healthy", "Healthy", "Degraded"]),
        cpus=draw.choice([2, 4, 8]),
        memory_mib=draw.choice([2048, 8192]),
        labels={"disk": draw.choice(["ssd", "hdd"])},
        inventory=draw.random() < 0.97,
        status={"reputation": {"score": "0.90", "outcomes": outcomes}, "onlineSince": draw.choice([None, ago(3600)])},
        unschedulable=draw.random() < 0.05,
        maxConcurrentJobs=draw.choice([None, None, 2]),
    )


def _job(draw: random.Random, name: str) -> JobView:
    gpus = draw.choice([0, 0, 1, 1, 2])
    source = {"attempt": 1, "step": 1, "digest": "d", "uri": f"node://{draw.choice(NAMES)}/x"}
    limits: dict[str, Any] = {"activeDeadlineSeconds": draw.choice([60, 600])} if draw.random() < 0.3 else {}
    return make_job(
        name,
        gpus=gpus,
        gpu_memory=draw.choice([None, "4Gi", "12Gi"]) if gpus else None,
        cpus=draw.choice([1, 1, 2, 4]),
        memory=draw.choice(["512Mi", "2Gi"]),
        nodeSelector=draw.choice([{}, {}, {"disk": "ssd"}]),
        priority=draw.choice([0, 0, 5]),
        status={"restoreFrom": draw.choice([None, None, source])},
        **limits,
    )


def _renamed(job: JobView, number: int) -> JobView:
    name = f"queued-{number}"
    metadata = job.job.metadata.model_copy(update={"name": name, "uid": name})
    return replace(job, job=job.job.model_copy(update={"metadata": metadata}))


def _started(draw: random.Random, job: JobView, node: str, gpus: tuple[str, ...]) -> JobView:
    identity = f"{job.uid}-1"
    left = {"progress": {"step": 1, "remainingSeconds": draw.choice([30, 300])}} if draw.random() < 0.5 else {}
    report = {"assignmentID": identity, "sequence": 1, "state": "Running", "startedAt": ago(600), **left}
    update = {
        "attempt": 1,
        "assignment": Assignment(id=identity, node=node, gpus=list(gpus)),
        "execution": Execution.model_validate(report),
    }
    return job.with_status(job.status.model_copy(update=update))
