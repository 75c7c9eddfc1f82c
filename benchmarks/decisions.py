"""What a decision costs: CPU per job with 100, 1,000 and 5,000 nodes of 8 GPUs, without any request.

    python -m benchmarks.decisions

Three queues: one burst of like jobs that all find a place, one of unlike jobs that all do, and one that finds none and
is told why and when while every node runs a job. "plan" is the decision alone (verdicts, scores, choice, devices,
words); "pass" all that one pass computes, from the watched objects to the statuses to be written.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.machine import describe
from cyxwiz_crds import TrainingJob
from cyxwiz_operator.clock import Now, now
from cyxwiz_operator.cluster import parse_node
from cyxwiz_operator.decisions import decide
from cyxwiz_operator.ledger import Ledger
from cyxwiz_operator.node_table import Columns
from cyxwiz_operator.scheduling.planning import Queued, plan
from cyxwiz_operator.snapshot import take_snapshot
from cyxwiz_operator.views import JobView, Liveness, NodeView

FLEETS = (100, 1000, 5000)
BINDS = 256
SHAPES = 32
WAITING = 3000
REPETITIONS = 7


class Alive:
    """Every node is."""

    def liveness(self, name: str, now: Now) -> Liveness:
        return Liveness.ONLINE


def main() -> None:
    print(f"{describe()}; {REPETITIONS} repetitions, medians of CPU time per job")
    print(f"{'queue':44} {'nodes':>6} {'plan':>10} {'pass':>10}")
    for count in FLEETS:
        nodes = {node.name: node for node in (_node(number) for number in range(count))}
        like = [_job(f"new-{number}", gpus=1) for number in range(BINDS)]
        unlike = [_job(f"new-{number}", gpus=1, cpus=1 + number % SHAPES) for number in range(BINDS)]
        busy = [_running(number) for number in range(count)]
        waiting = [_job(f"waits-{number}", gpus=8, phase="Queued", reason="NoNodeFree") for number in range(WAITING)]
        _report(f"{BINDS} like jobs placed", nodes, like, [])
        _report(f"{BINDS} jobs of {SHAPES} shapes placed", nodes, unlike, [])
        _report(f"{WAITING} jobs wait, one runs on every node", nodes, waiting, busy)


def _report(what: str, nodes: dict[str, NodeView], queue: Sequence[JobView], busy: Sequence[JobView]) -> None:
    seen = {job.uid: job for job in (*busy, *queue)}
    columns = Columns()
    snapshot = take_snapshot(seen, nodes, Ledger(), Alive(), columns, now())
    entries = [Queued(job, frozenset()) for job in queue]

    def planned() -> None:
        plan(entries, snapshot.nodes, snapshot.now, running=busy, most=BINDS)

    def passed() -> None:
        decide(take_snapshot(seen, nodes, Ledger(), Alive(), columns, now()), most_binds=BINDS)

    costs = " ".join(f"{_cpu_s(each) / len(queue) * 1e6:>7.0f} us" for each in (planned, passed))
    print(f"{what:44} {len(nodes):>6} {costs}", flush=True)


def _cpu_s(function: Callable[[], None]) -> float:
    function()  # what is kept from pass to pass is there
    spent_s: list[float] = []
    for _ in range(REPETITIONS):
        started = time.process_time()
        function()
        spent_s.append(time.process_time() - started)
    return statistics.median(spent_s)


def _node(number: int) -> NodeView:
    gpu = {"name": "GPU", "computeCapability": "9.0", "memoryTotalMiB": 81920}
    gpus = [gpu | {"uuid": f"GPU-{number}-{device}"} for device in range(8)]
    inventory = {"gpus": gpus, "cpus": 64, "memoryMiB": 2**19}
    return parse_node({"metadata": {"name": f"node-{number:05}"}, "status": {"inventory": inventory}})


def _job(name: str, gpus: int, cpus: int = 1, **status: Any) -> JobView:
    metadata = {"name": name, "namespace": f"team-{len(name) % 4}", "uid": name, "resourceVersion": "1"}
    resources = {"gpus": gpus, "cpus": cpus}
    spec = {"model": {"name": "cnn"}, "dataset": {"uri": "builtin://digits"}, "resources": resources}
    return JobView(TrainingJob.model_validate({"metadata": metadata, "spec": spec, "status": status}))


def _running(number: int) -> JobView:
    name = f"runs-{number}"
    uuids = [f"GPU-{number}-0"]
    assignment = {"id": f"{name}-1", "node": f"node-{number:05}", "gpus": uuids, "boundAt": now().micro_time}
    progress = {"step": 10, "remainingSeconds": 600 + number}
    execution = {"assignmentID": f"{name}-1", "sequence": 1, "state": "Running", "progress": progress}
    return _job(name, 1, phase="Running", attempt=1, assignment=assignment, execution=execution)


if __name__ == "__main__":
    main()
