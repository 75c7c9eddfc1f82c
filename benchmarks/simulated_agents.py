"""Agents as far as the API server can tell, without machines, processes or training behind them."""

from __future__ import annotations

import asyncio
import contextlib
import random
import statistics
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from cyxwiz_agent.pace import Pace
from cyxwiz_kube import ChangeKind, Kube, paths
from cyxwiz_platform.platform import NAMESPACE

from .load import in_parallel

LOOKS_EVERY_S = 0.05
HAVE_RUN_S = 3600.0
"""How old a running job is to its agent."""


class Agents(Kube):
    """An administrator's client that writes as the agent of one node or another: under the policies and in the priority
    level of agents' requests."""

    def __init__(self, kube: Kube) -> None:
        super().__init__(kube.credentials, user_agent="cyxwiz-agent", request_timeout_s=60)
        self._node: ContextVar[str] = ContextVar("node")

    async def report(self, node: str, path: str, execution: dict[str, Any]) -> None:
        """The execution is in the job's status. Raises ApiError."""
        self._node.set(node)
        await self.merge_patch(paths.status(path), {"status": {"execution": execution}})

    def _authorization(self) -> dict[str, str]:
        return super()._authorization() | {
            "Impersonate-User": f"system:serviceaccount:{NAMESPACE}:cyxwiz-agent",
            "Impersonate-Extra-authentication.kubernetes.io%2Fnode-name": self._node.get(),
        }


class RunningJobs:
    """Jobs that were bound and started by hand, whose simulated agents report progress as real ones do."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._agents = Agents(kube)
        self._node: dict[str, str] = {}
        self._pace: defaultdict[str, Pace] = defaultdict(Pace)
        self._sequence: dict[str, int] = {}
        self._assignment: dict[str, str] = {}
        self.reports = 0

    @property
    def jobs(self) -> list[str]:
        """Their paths."""
        return list(self._sequence)

    @property
    def interval_s(self) -> float:
        """Between two reports of one job, the median over the nodes."""
        return statistics.median(map(self._interval_of, self._pace))

    async def start(self, jobs: Sequence[str], nodes: Sequence[str]) -> None:
        """Every job runs on one of the nodes."""
        await in_parallel(self._start(path, nodes[number % len(nodes)]) for number, path in enumerate(jobs))

    async def _start(self, path: str, node: str) -> None:
        uid = (await self._kube.get(path))["metadata"]["uid"]
        identity, now = f"{uid}-1", _now()
        assignment = {"id": identity, "node": node, "intent": "Run", "boundAt": now}
        bound = {"phase": "Running", "reason": "Training", "attempt": 1, "assignment": assignment}
        await self._kube.merge_patch(paths.status(path), {"status": bound})
        running = {"assignmentID": identity, "sequence": 1, "state": "Running", "startedAt": now}
        await self._kube.merge_patch(paths.status(path), {"status": {"execution": running}})
        self._assignment[path], self._sequence[path], self._node[path] = identity, 1, node

    @contextlib.asynccontextmanager
    async def reporting(self) -> AsyncIterator[None]:
        """Every job reports at its agent's pace while the block runs, spread at random."""
        task = asyncio.create_task(self._report_all())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def aclose(self) -> None:
        """The agents are gone; their jobs stay as they are."""
        await self._agents.close()

    async def _report_all(self) -> None:
        jobs, started = self._node.items(), time.monotonic()
        told = {path: started - self._interval_of(node) * random.random() for path, node in jobs}
        async with asyncio.TaskGroup() as group:
            while True:
                now = time.monotonic()
                for path, node in jobs:
                    if told[path] + self._interval_of(node) <= now:
                        told[path] = now
                        group.create_task(self.report(path))
                await asyncio.sleep(LOOKS_EVERY_S)

    def _interval_of(self, node: str) -> float:
        return self._pace[node].interval_s(HAVE_RUN_S)

    async def report(self, path: str) -> None:
        """The job's next report is there."""
        sequence = self._sequence[path] = self._sequence[path] + 1
        progress = {"step": sequence, "loss": f"{1 / sequence:.4f}", "remainingSeconds": 3600}
        report = {"assignmentID": self._assignment[path], "sequence": sequence, "progress": progress}
        sent = time.monotonic()
        await self._agents.report(self._node[path], path, report)
        self._pace[self._node[path]].measured(time.monotonic() - sent)
        self.reports += 1


async def run_all(kube: Kube, runtime_s: dict[str, float]) -> float:
    """Every job bound from now on is started at once and ends well after its own time.

    Answers with the moment (`time.perf_counter`) at which the last of `runtime_s`, by name, was seen Succeeded.
    """
    left = set(runtime_s)
    taken: set[str] = set()

    async def run(job: dict[str, Any]) -> None:
        metadata, identity = job["metadata"], job["status"]["assignment"]["id"]
        path = paths.status(paths.training_job(metadata["namespace"], metadata["name"]))
        report = {"assignmentID": identity, "sequence": 1, "state": "Running", "startedAt": _now()}
        await kube.merge_patch(path, {"status": {"execution": report}})
        await asyncio.sleep(runtime_s[metadata["name"]])
        report |= {"sequence": 2, "state": "Succeeded", "endedAt": _now()}
        await kube.merge_patch(path, {"status": {"execution": report}})

    async with asyncio.TaskGroup() as group:
        async for change in kube.watch(paths.training_jobs()):
            if change.kind is not ChangeKind.PRESENT or change.object["metadata"]["name"] not in runtime_s:
                continue
            status = change.object.get("status") or {}
            if status.get("phase") == "Succeeded":
                left.discard(change.object["metadata"]["name"])
                if not left:
                    return time.perf_counter()
            assignment = status.get("assignment")
            if assignment and assignment["id"] not in taken and not status.get("execution"):
                taken.add(assignment["id"])
                group.create_task(run(change.object))
    raise AssertionError("a watch never ends")


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
