"""Keeps one pod for each assignment with a reservation, and none for any other. The one writer of these pods.

Level-triggered: what should be is asked of the jobs, what is of the watch. Pods are named after their assignment, so
that a restart in between makes none twice, and what nobody is assigned to is deleted whenever it is found.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from cyxwiz_crds import FINAL_PHASES, Reason, TrainingJob
from cyxwiz_kube import ApiError, ChangeKind, Conflict, Forbidden, Invalid, Kube, NotFound, paths

from .reservation_pods import LABEL, Reservation, ReservationSettings, parse_pod, pod_body, pod_name
from .views import JobView
from .watched import Watched

log = logging.getLogger(__name__)

AT_ONCE_S = 1
"""Grace of a pod whose job has left: nothing has to be waited for."""


class Cluster(Protocol):
    """Who makes and deletes pods, and knows of jobs that have left the watch (`cluster.Cluster`)."""

    async def create_pod(self, namespace: str, body: dict[str, Any]) -> dict[str, Any]: ...

    async def delete_pod(self, pod: Reservation, grace_s: int | None) -> None: ...

    async def read_job(self, namespace: str, name: str) -> TrainingJob | None: ...


class Reservations:
    """What is known of each assignment's pod, by assignment."""

    def __init__(self, settings: ReservationSettings) -> None:
        self.settings = settings
        self.known: dict[str, Reservation] = {}
        self._owners: dict[str, str] = {}
        self._told: set[str] = set()

    def see(self, item: dict[str, Any]) -> bool:
        """The watch has shown a pod; True when something has changed."""
        pod = parse_pod(item)
        self._owners[pod.assignment] = next((o["name"] for o in item["metadata"].get("ownerReferences") or ()), "")
        changed = self.known.get(pod.assignment) != pod
        self.known[pod.assignment] = pod
        return changed

    def miss(self, item: dict[str, Any]) -> None:
        """A pod is gone: its assignment has no GPUs any more, and never gets a second pod."""
        for pod in list(self.known.values()):
            if pod.uid == item["metadata"]["uid"]:
                self.known[pod.assignment] = replace(pod, uid="", leaves=pod.leaves or Reason.EVICTED, ends=True)

    async def follow(self, kube: Kube, watched: Watched) -> None:
        """`known` is as the API server has it from now on. Never returns."""
        async for change in kube.watch(paths.pods(), label_selector=LABEL):
            if change.kind is ChangeKind.SYNCED:
                watched.pods_synced.set()
            elif change.kind is ChangeKind.GONE:
                self.miss(change.object)
            elif not self.see(change.object):
                continue
            watched.bell.set()

    async def keep(self, cluster: Cluster, jobs: Iterable[JobView], unreadable: Iterable[str]) -> None:
        """Every assignment that asks for a pod has had one, and pods of any other are on their way out."""
        jobs = list(jobs)
        wanted = _wanted(jobs)
        for assignment, job in wanted.items():
            if assignment not in self.known and job.status.execution is None:
                await self._create(cluster, job)
        self._told &= self.known.keys()
        self._owners = {key: name for key, name in self._owners.items() if key in self.known}
        unknown = tuple(unreadable)
        uids = {job.uid for job in jobs}
        for pod in list(self.known.values()):
            if pod.assignment in wanted or pod.assignment.startswith(unknown):
                continue
            if not pod.uid:
                del self.known[pod.assignment]
            else:
                await self._delete(cluster, pod, is_there=pod.assignment.rpartition("-")[0] in uids)

    async def _create(self, cluster: Cluster, job: JobView) -> None:
        assignment = job.status.assignment
        assert assignment is not None
        namespace = job.job.metadata.namespace
        blank = Reservation(assignment.id, namespace, pod_name(assignment.id))
        try:
            made = await cluster.create_pod(namespace, pod_body(job, assignment, self.settings))
            log.info("pod made", extra={"job": job.key, "pod": blank.name})
            if assignment.id not in self.known:  # else the watch was faster, and may know more of it by now
                self.see(made)
        except Conflict:
            pass  # made before a restart, and about to be seen
        except (Forbidden, Invalid, NotFound) as error:
            log.info("pod refused", extra={"job": job.key, "error": error})
            self.known[assignment.id] = replace(blank, refused=True, message=error.message)
        except ApiError as error:
            log.warning("pod not made, trying again", extra={"job": job.key, "error": error})

    async def _delete(self, cluster: Cluster, pod: Reservation, *, is_there: bool) -> None:
        """At once where the job has left its place; where it was deleted its processes may still be saving."""
        if pod.assignment in self._told:
            return
        try:
            over = is_there or await self._is_over(cluster, pod)
            if over or not pod.ends:
                await cluster.delete_pod(pod, AT_ONCE_S if over else None)
                log.info("pod deleted", extra={"pod": f"{pod.namespace}/{pod.name}"})
            self._told.add(pod.assignment)
        except (NotFound, Conflict):
            self.known.pop(pod.assignment, None)
        except ApiError as error:
            log.warning("pod not deleted, trying again", extra={"pod": pod.name, "error": error})

    async def _is_over(self, cluster: Cluster, pod: Reservation) -> bool:
        """The job has left the watch because it is over, and not because it was deleted."""
        job = await cluster.read_job(pod.namespace, self._owners.get(pod.assignment, ""))
        return job is not None and job.metadata.uid in pod.assignment and job.status.phase in FINAL_PHASES


def _wanted(jobs: Iterable[JobView]) -> Mapping[str, JobView]:
    """Assignment to its job, for those that hold a reservation."""
    held = ((job.status.assignment, job) for job in jobs if job.holds_capacity)
    return {assignment.id: job for assignment, job in held if assignment is not None and assignment.reservation}
