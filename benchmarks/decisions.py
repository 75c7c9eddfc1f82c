"""What a decision costs: CPU per job of whole passes at 5,000 nodes, without any request.

    python -m benchmarks.decisions

Two passes: one in which every job finds a place, and one over a queue that finds none and is told why and when.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.machine import describe
from cyxwiz_crds import TrainingJob
from cyxwiz_operator.clock import Now, now
from cyxwiz_operator.cluster import parse_node
from cyxwiz_operator.decisions import Decisions, decide
from cyxwiz_operator.ledger import Ledger
from cyxwiz_operator.node_table import Columns
from cyxwiz_operator.snapshot import take_snapshot
from cyxwiz_operator.views import JobView, Liveness, NodeView

NODES = 5000
BINDS = 256
WAITING = 3000
REPETITIONS = 5


class Alive:
    """Every node is."""

    def liveness(self, name: str, now: Now) -> Liveness:
        return Liveness.ONLINE


def main() -> None:
    nodes = {node.name: node for node in (_node(number) for number in range(NODES))}
    pending = [_job(f"new-{number}", gpus=1) for number in range(BINDS)]
    busy = [_running(number) for number in range(NODES)]
    waiting = [_job(f"waits-{number}", gpus=8) for number in range(WAITING)]
    print(f"{describe()}; {NODES} nodes, {REPETITIONS} repetitions, medians")
    _report(f"{BINDS} jobs placed", BINDS, _passes(nodes, pending))
    _report(f"{WAITING} jobs wait, {NODES} run", WAITING, _passes(nodes, [*busy, *waiting]))


def _passes(nodes: dict[str, NodeView], jobs: Iterable[JobView]) -> Callable[[], Decisions]:
    seen = {job.uid: job for job in jobs}
    columns = Columns()

    def one() -> Decisions:
        moment = now()
        return decide(take_snapshot(seen, nodes, Ledger(), Alive(), columns, moment), most_binds=BINDS)

    one()  # the columns that stand still are kept from pass to pass
    return one


def _report(what: str, jobs: int, one_pass: Callable[[], Decisions]) -> None:
    spent_s: list[float] = []
    for _ in range(REPETITIONS):
        started = time.process_time()
        one_pass()
        spent_s.append(time.process_time() - started)
    median_s = statistics.median(spent_s)
    print(f"{what}: {median_s * 1000:.0f} ms a pass, {median_s / jobs * 1e6:.0f} us a job")


def _node(number: int) -> NodeView:
    gpu = {"name": "GPU", "computeCapability": "9.0", "memoryTotalMiB": 81920}
    gpus = [gpu | {"uuid": f"GPU-{number}-{device}"} for device in range(8)]
    inventory = {"gpus": gpus, "cpus": 64, "memoryMiB": 2**19}
    return parse_node({"metadata": {"name": f"node-{number:05}"}, "status": {"inventory": inventory}})


def _job(name: str, gpus: int, **status: Any) -> JobView:
    metadata = {"name": name, "namespace": f"team-{len(name) % 4}", "uid": name, "resourceVersion": "1"}
    spec = {"model": {"name": "cnn"}, "dataset": {"uri": "builtin://digits"}, "resources": {"gpus": gpus}}
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
