"""Columns against their scalar twins, on random clusters; and what a plan must never do."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cyxwiz_operator.node_table import Columns, own_demand
from cyxwiz_operator.scheduling import filters, scoring
from cyxwiz_operator.scheduling.planning import Queued, explain, plan
from cyxwiz_operator.views import JobView, NodeView

from . import reference
from .builders import NOW, START, ago, gpu_uuid, later, make_bound_job, make_job, make_node, make_table

MEASURED = {
    "workload": "cnn-1",
    "device": "Test GPU",
    "samplesPerSecond": "1000.0",
    "secondsPerStep": "0.03",
    "stepsPerEpoch": 100,
    "data": "builtin://digits",
}


@st.composite
def nodes(draw: st.DrawFn, name: str) -> NodeView:
    outcomes = draw(st.lists(st.tuples(st.booleans(), st.integers(0, 10**6)), max_size=4))
    status: dict[str, Any] = {
        "reputation": {
            "score": "0.90",
            "outcomes": [
                {"job": f"o{n}", "good": good, "endedAt": ago(age), "measured": MEASURED if good else None}
                for n, (good, age) in enumerate(outcomes)
            ],
        },
        "onlineSince": draw(st.sampled_from([None, ago(0), ago(3600), ago(10**6)])),
        "earlierOnline": draw(st.sampled_from([[], [{"since": ago(700_000), "until": ago(500_000)}]])),
    }
    return make_node(
        name,
        gpus=draw(st.integers(0, 3)),
        gpu_memory_mib=draw(st.sampled_from([8192, 81920, 143771])),
        gpu_context_mib=draw(st.sampled_from([0, 1024])),
        gpu_mode=draw(st.sampled_from([None, "dedicated", "reserve"])),
        gpu_health=draw(st.sampled_from(["Healthy", "Degraded", "Unhealthy"])),
        compute_capability=draw(st.sampled_from(["7.0", "9.0", "12.0", "unknown"])),
        cpus=draw(st.sampled_from([1, 4, 128])),
        memory_mib=draw(st.sampled_from([1024, 8192])),
        labels={"disk": draw(st.sampled_from(["ssd", "hdd"]))},
        inventory=draw(st.sampled_from([True, True, True, False])),
        warm=draw(st.booleans()),
        status=status,
        unschedulable=draw(st.sampled_from([False, False, True])),
        jobTypes=draw(st.sampled_from([[], ["Training"], ["Evaluation"]])),
        maxConcurrentJobs=draw(st.sampled_from([None, 1, 3])),
    )


@st.composite
def jobs(draw: st.DrawFn, name: str) -> JobView:
    gpus = draw(st.integers(0, 2))
    source = {"attempt": 1, "step": 1, "digest": "d", "uri": f"node://{draw(st.sampled_from('ab'))}/x"}
    return make_job(
        name,
        gpus=gpus,
        gpu_memory=draw(st.sampled_from([None, "4Gi", "90Gi"])) if gpus else None,
        cpus=draw(st.sampled_from([1, 2, 8])),
        memory=draw(st.sampled_from(["512Mi", "2Gi"])),
        nodeSelector=draw(st.sampled_from([{}, {}, {"disk": "ssd"}])),
        dataset={"uri": draw(st.sampled_from(["builtin://digits", "mock://cifar10"]))},
        status={"restoreFrom": draw(st.sampled_from([None, source]))},
    )


@st.composite
def clusters(draw: st.DrawFn) -> tuple[list[NodeView], list[JobView], set[str]]:
    """Nodes, jobs that run on them within their capacity, and the nodes that are offline."""
    found = [draw(nodes(name)) for name in "abc"[: draw(st.integers(0, 3))]]
    offline = {node.name for node in found if draw(st.booleans())}
    waiting = [draw(jobs(f"running-{number}")) for number in range(draw(st.integers(0, 4)))]
    placed = plan([Queued(job, frozenset()) for job in waiting], make_table(*found), NOW).placements
    running = [
        make_bound_job(
            each.job.job.metadata.name,
            node=each.node,
            gpu_uuids=each.gpus,
            gpus=each.job.job.spec.resources.gpus,
            gpu_memory=each.job.job.spec.resources.gpu_memory,
            cpus=each.job.job.spec.resources.cpus,
            memory=each.job.job.spec.resources.memory,
        )
        for each in placed
    ]
    return found, running, offline


@settings(max_examples=300, deadline=None)
@given(clusters(), jobs("new"), st.sampled_from([frozenset(), frozenset({"a"})]), st.sampled_from([None, "a", "z"]))
def test_columns_agree_with_the_scalar_twin(
    cluster: tuple[list[NodeView], list[JobView], set[str]],
    job: JobView,
    excluded: frozenset[str],
    weights_node: str | None,
) -> None:
    found, running, offline = cluster
    table = make_table(*found, jobs=running, offline=offline)
    demand = own_demand(job, excluded, weights_node)
    verdicts = filters.examine(demand, table)
    scores = scoring.score(demand, table)
    for row, node in enumerate(sorted(found, key=lambda each: each.name)):
        refusals = [check.reason for check, failing in verdicts.refused() if failing[row]]
        expected = reference.first_refusal(demand, node, node.name not in offline, running, START)
        assert refusals == ([] if expected is None else [expected])
        assert bool(verdicts.fits[row]) is (expected is None)
        assert scores.total[row] == pytest.approx(reference.score(demand, node, running, START), abs=1e-9)


@settings(max_examples=200, deadline=None)
@given(clusters(), clusters(), st.randoms(use_true_random=False))
def test_columns_read_anew_for_some_nodes_are_those_read_anew_for_all(
    before: tuple[list[NodeView], list[JobView], set[str]],
    after: tuple[list[NodeView], list[JobView], set[str]],
    draw: random.Random,
) -> None:
    columns = Columns()
    columns.of(before[0], START)
    newer = {node.name: node for node in after[0]}
    nodes = [newer.get(node.name, node) if draw.random() < 0.5 else node for node in before[0]]
    kept, anew = columns.of(nodes, START), Columns().of(nodes, START)
    devices = anew.gpu_usable.shape[1]
    for each in fields(anew):
        ours, theirs = getattr(kept, each.name), getattr(anew, each.name)
        if each.name == "has_read":
            assert {data for data, mask in ours.items() if mask.any()} == theirs.keys()
            ours, theirs = (np.array([table[data] for data in anew.has_read]) for table in (ours, theirs))
        elif isinstance(theirs, np.ndarray) and theirs.ndim == 2:
            assert not ours[:, devices:].any(), "no node has these devices any more"
            ours = ours[:, :devices]
        same = np.array_equal(ours, theirs) if isinstance(theirs, np.ndarray) else ours == theirs
        assert same or each.name == "kept", each.name


@settings(max_examples=200, deadline=None)
@given(clusters(), st.integers(0, 12).flatmap(lambda n: st.tuples(*[jobs(f"new-{i}") for i in range(n)])))
def test_a_plan_never_gives_what_is_not_there(
    cluster: tuple[list[NodeView], list[JobView], set[str]], queue: tuple[JobView, ...]
) -> None:
    found, running, offline = cluster
    made = plan([Queued(job, frozenset()) for job in queue], make_table(*found, jobs=running, offline=offline), NOW)
    assert len(made.placements) + len(made.waiting) == len(queue)
    cpus: Counter[str] = Counter()
    memory_mib: Counter[str] = Counter()
    on_device: dict[str, list[int | None]] = defaultdict(list)
    for job in running:
        assert job.status.assignment is not None
        cpus[job.status.assignment.node] += job.job.spec.resources.cpus
        memory_mib[job.status.assignment.node] += job.memory_mib
        for uuid in job.status.assignment.gpus:
            on_device[uuid].append(job.gpu_memory_mib)
    for each in made.placements:
        assert each.node not in offline
        assert len(set(each.gpus)) == each.job.job.spec.resources.gpus
        cpus[each.node] += each.job.job.spec.resources.cpus
        memory_mib[each.node] += each.job.memory_mib
        for uuid in each.gpus:
            on_device[uuid].append(each.job.gpu_memory_mib)
    for node in found:
        assert cpus[node.name] <= node.cpus
        assert memory_mib[node.name] <= node.memory_mib
        for gpu in node.gpus:
            shares = on_device[gpu.uuid]
            assert len(shares) <= 1 or None not in shares
            assert sum(share or 0 for share in shares) <= gpu.memory_total_mi_b


def test_a_burst_does_not_herd_onto_the_best_node() -> None:
    table = make_table(*(make_node(name, cpus=16, memory_mib=65536) for name in ("node-a", "node-b", "node-c")))
    made = plan([Queued(make_job(f"job-{n}"), frozenset()) for n in range(9)], table, NOW)
    assert Counter(each.node for each in made.placements) == {"node-a": 3, "node-b": 3, "node-c": 3}


def test_a_plan_is_the_same_every_time_and_ties_go_by_name() -> None:
    queue = [Queued(make_job(f"job-{n}"), frozenset()) for n in range(4)]
    forward = plan(queue, make_table(make_node("node-b"), make_node("node-a")), NOW)
    backward = plan(queue, make_table(make_node("node-a"), make_node("node-b")), NOW)
    assert [each.node for each in forward.placements] == [each.node for each in backward.placements]
    assert forward.placements[0].node == "node-a"


def test_shared_jobs_fill_one_gpu_before_the_next() -> None:
    table = make_table(make_node(gpus=2, gpu_memory_mib=16384))
    queue = [Queued(make_job(f"job-{n}", gpus=1, gpu_memory="8Gi"), frozenset()) for n in range(3)]
    first, second, third = plan(queue, table, NOW).placements
    assert first.gpus == second.gpus != third.gpus


def test_a_plan_stops_at_its_bound_and_says_how_many_are_left() -> None:
    queue = [Queued(make_job(f"job-{n}"), frozenset()) for n in range(5)]
    made = plan(queue, make_table(make_node()), NOW, most=2)
    assert (len(made.placements), made.postponed) == (2, 3)


def test_a_job_prefers_the_node_that_holds_its_checkpoint() -> None:
    source = {"attempt": 1, "step": 400, "digest": "d", "uri": "node://node-b/x/step-400"}
    job = make_job(status={"restoreFrom": source})
    busy = make_bound_job("other", node="node-b", cpus=6)
    table = make_table(make_node("node-a"), make_node("node-b"), jobs=[busy])
    [placement] = plan([Queued(job, frozenset())], table, NOW).placements
    assert placement.node == "node-b"
    assert placement.candidates[0].endswith("+ checkpoint 1.00")


def test_the_worked_example_of_the_document() -> None:
    """docs/design/scoring.md holds the very line that is computed here."""
    week_s = 7 * 24 * 3600

    def outcomes(rate: str) -> list[dict[str, Any]]:
        return [{"job": "y-1", "good": True, "endedAt": ago(0), "measured": {**MEASURED, "samplesPerSecond": rate}}]

    lost = {"job": "x-1", "good": False, "endedAt": ago(0)}
    node = make_node(
        gpus=2,
        cpus=16,
        warm=True,
        status={
            "reputation": {"score": "0.62", "outcomes": [*outcomes("600.0"), lost]},
            "onlineSince": ago(week_s / 4),
            "earlierOnline": [{"since": ago(week_s), "until": ago(week_s * 3 / 4)}],
        },
    )
    fleet = [make_node(name, status={"reputation": {"score": "1.00", "outcomes": outcomes("1000.0")}}) for name in "bc"]
    other = make_bound_job("other", gpus=1, cpus=2, gpu_uuids=[gpu_uuid("node-a", 0)])
    table = make_table(node, *fleet, jobs=[other])
    words = scoring.score(own_demand(make_job(gpus=1)), table).words(table.names.index("node-a"), "node-a")
    assert words in (Path(__file__).parents[3] / "docs/design/scoring.md").read_text(), words


@pytest.mark.parametrize(
    ("job", "found", "running", "reason", "message"),
    [
        (make_job(), [], [], "NoNodes", "No ComputeNode exists yet: is the agent running?"),
        (make_job(gpus=8), [make_node("node-a"), make_node("node-b", gpus=2)], [], "NoNodeFits",
         "0/2 nodes fit: 2 have fewer than 8 GPUs. Set resources.gpus: 0 to train on the CPU."),
        (make_job(gpus=1, gpu_memory="90Gi"), [make_node(gpus=1)], [], "NoNodeFits",
         "0/1 nodes fit: 1 has too few GPUs of 90Gi. Set a smaller resources.gpuMemory."),
        (make_job(cpus=9), [make_node()], [], "NoNodeFits",
         "0/1 nodes fit: 1 has fewer than 9 CPUs. Set a smaller resources.cpus."),
        (make_job(nodeSelector={"disk": "ssd"}), [make_node(labels={"disk": "hdd"})], [], "NoNodeFits",
         "0/1 nodes fit: 1 lacks the labels disk=ssd. Compare nodeSelector with spec.labels of the ComputeNodes."),
        (make_job(gpus=1), [make_node(gpus=1, gpu_mode="reserve")], [], "NoNodeFits",
         "0/1 nodes fit: 1 is of another GPU mode than it needs."
         " docs/upgrade.md: a machine changes its GPU mode when its pod is replaced."),
        (make_job(), [make_node("node-a", cpus=2), make_node("node-b", unschedulable=True)],
         [make_bound_job("other", cpus=2)], "NoNodeFree",
         "0/2 nodes have room: node-b is unschedulable, node-a full (2 of 2 CPUs used by 1 job)."),
        (make_job(gpus=1), [make_node(gpus=1)], [make_bound_job("other", gpus=1, gpu_uuids=["GPU-node-a-0"])],
         "NoNodeFree", "0/1 nodes have room: node-a full (1 of 1 GPUs used by 1 job)."),
        (make_job(), [make_node(f"node-{n}", unschedulable=True) for n in range(4)], [], "NoNodeFree",
         "0/4 nodes have room: 4 are unschedulable."),
    ],
)  # fmt: skip  # a table
def test_a_waiting_job_is_told_why(
    job: JobView, found: list[NodeView], running: list[JobView], reason: str, message: str
) -> None:
    table = make_table(*found, jobs=running)
    demand = own_demand(job)
    assert explain(demand, filters.examine(demand, table), table) == (reason, message)


def test_a_job_waits_while_its_only_node_is_offline() -> None:
    made = plan([Queued(make_job(), frozenset())], make_table(make_node(), offline=["node-a"]), NOW)
    assert [waiting.message for waiting in made.waiting] == ["0/1 nodes have room: node-a is offline."]


def test_a_failed_job_waits_for_its_retry() -> None:
    job = make_job(status={"retryAt": later(10).timestamp})
    table = make_table(make_node())
    assert [waiting.reason for waiting in plan([Queued(job, frozenset())], table, NOW).waiting] == ["BackingOff"]
    assert plan([Queued(job, frozenset())], table, later(10)).placements


def test_a_job_that_has_ended_holds_nothing() -> None:
    ended = make_bound_job(cpus=8, execution={"state": "Failed"})
    table = make_table(make_node(), jobs=[ended])
    assert np.array_equal(table.free_cpus, [8])
