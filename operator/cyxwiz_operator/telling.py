"""What people read and nothing rests on: Events, ComputeNode statuses, why a job waits. It yields to binds."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice

from cyxwiz_crds import ComputeNodeStatus
from cyxwiz_crds.compute_node import Allocation, Outcome

from .clock import Now
from .cluster import ApiError, Cluster, Conflict, NotFound
from .decisions import Decisions
from .errands import Errand, Errands
from .lifecycle import Note, StatusChange
from .metrics import Metrics, set_all
from .node_review import allocations, phase_of, review_node
from .reputation import merged, outcomes_of
from .settings import Settings
from .snapshot import ClusterSnapshot
from .speeds import Speeds, typical_speeds
from .views import JobView, NodeView
from .watched import Watched
from .writing import Writer

log = logging.getLogger(__name__)

AT_ONCE = 2
"""Writes of a kind under way at a time: a bind that comes up meanwhile shares the API server with them."""
HANDFUL = 16
WORD_S = 10.0
"""While binds wait for their turn, so often a handful of each kind."""
REMEMBERED_FINISHED = 1024
LONGEST_QUEUE_OF_EVENTS = 10_000


class Teller:
    """Remembers what was told when, so that it is not told too often."""

    def __init__(
        self,
        cluster: Cluster,
        watched: Watched,
        settings: Settings,
        metrics: Metrics,
        clock: Callable[[], Now],
    ) -> None:
        self._cluster = cluster
        self._watched = watched
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._notes: deque[tuple[JobView, Note]] = deque(maxlen=LONGEST_QUEUE_OF_EVENTS)
        self._explained_at: dict[str, float] = {}
        self._node_written: dict[str, tuple[float, str | None]] = {}
        # Facts under which a node's status was found right: reviewing thousands of nodes each pass would be felt.
        self._node_right: dict[str, tuple[object, ...]] = {}
        self._told_unreadable: dict[str, str] = {}
        self._finished: dict[str, JobView] = {}
        self._told_at = float("-inf")
        self._posting = Errands(watched.bell, AT_ONCE)
        self._noting_nodes = Errands(watched.bell, AT_ONCE)

    def written(self, change: StatusChange, after: JobView) -> None:
        """A change of status has reached the API server."""
        if after.is_final:
            self.remember_finished(after)
        self._notes.extend((after, note) for note in change.notes)

    def remember_finished(self, job: JobView) -> None:
        """The job's outcome will be counted for its node: once, however often it is seen."""
        self._finished[job.uid] = job
        while len(self._finished) > REMEMBERED_FINISHED:
            del self._finished[next(iter(self._finished))]

    def has_counted(self, job: JobView) -> bool:
        """Its nodes remember what the job says of them, as far as they would keep it."""
        for node, outcome in outcomes_of(job):
            view = self._watched.nodes.get(node)
            if view is None or outcome.job in {each.job for each in view.outcomes}:
                continue
            if outcome in merged(view.outcomes, [outcome]):
                return False
        return True

    async def tell(self, snapshot: ClusterSnapshot, decisions: Decisions, writer: Writer, losses_held: bool) -> None:
        """Everything has been told, or something more important came up.

        While binds wait for their turn, seldom and little: each write is one that a bind could be.
        """
        self._show(snapshot, decisions)
        if decisions.postponed and snapshot.now.boot - self._told_at < WORD_S:
            return
        self._told_at = snapshot.now.boot
        most = HANDFUL if decisions.postponed else None
        for uid in list(self._watched.unreadable):
            await self._tell_unreadable(uid, snapshot.now)
        await self._posting.run(islice(self._due_notes(), most))
        await self._noting_nodes.run(islice(self._due_nodes(snapshot, losses_held), most))
        await self._explain_all(self._due_explanations(snapshot, decisions)[:most], writer)

    async def _explain_all(self, due: Sequence[StatusChange], writer: Writer) -> None:
        """These are awaited: the next pass must not decide on a job that is being written."""
        for start in range(0, len(due), AT_ONCE):
            await asyncio.gather(*(self._explain(each, writer) for each in due[start : start + AT_ONCE]))
            if self._watched.bell.is_set():
                return

    def _due_notes(self) -> Iterator[Errand]:
        while self._notes:
            yield partial(self._post, *self._notes.popleft())

    async def _post(self, job: JobView, note: Note) -> None:
        try:
            await self._cluster.note(job, note, self._clock())
        except Conflict:
            return  # it was told before
        except ApiError as error:
            log.info("event lost", extra={"job": job.key, "reason": note.reason, "error": error})

    def _show(self, snapshot: ClusterSnapshot, decisions: Decisions) -> None:
        set_all(self._metrics.waiting, decisions.waiting)
        set_all(self._metrics.nodes, Counter(view.node.status.phase or "New" for view in snapshot.views.values()))
        self._metrics.held.set(len(snapshot.held))
        self._metrics.unreadable.set(len(self._watched.unreadable))

    async def _tell_unreadable(self, uid: str, now: Now) -> None:
        job = self._watched.unreadable.get(uid)
        if job is None or self._told_unreadable.get(uid) == job.problem:
            return
        facts = {"job": f"{job.namespace}/{job.name}", "problem": job.problem}
        try:
            await self._cluster.tell_unreadable(job, now)
        except (Conflict, NotFound):
            return  # the watch will bring the newer one
        except ApiError as error:
            log.error("write refused", extra={**facts, "error": error})
        log.warning("unreadable", extra=facts)
        self._told_unreadable[uid] = job.problem

    def _due_explanations(self, snapshot: ClusterSnapshot, decisions: Decisions) -> list[StatusChange]:
        """News for the first of the queue, each at most once a minute."""
        known = {job.uid for job in snapshot.jobs}
        self._explained_at = {uid: at for uid, at in self._explained_at.items() if uid in known}
        first = decisions.explanations[: self._settings.explained_jobs]
        since = snapshot.now.boot - self._settings.explanation_interval_s
        return [change for change in first if self._explained_at.get(change.job.uid, since) <= since]

    async def _explain(self, change: StatusChange, writer: Writer) -> None:
        self._explained_at[change.job.uid] = self._clock().boot
        await writer.write(change, "explain")

    def _due_nodes(self, snapshot: ClusterSnapshot, losses_held: bool) -> Iterator[Errand]:
        """Nodes whose status is not what it should be, and that were not written a moment ago.

        Each is reviewed when its turn comes: what is not reached is not worked out.
        """
        outcomes = self._outcomes(snapshot)
        in_use = allocations(snapshot.nodes)
        now = snapshot.now
        typical: Speeds | None = None
        for name, view in snapshot.views.items():
            seen = view.node.status
            known = outcomes.get(name, ())
            liveness, version = snapshot.liveness[name], view.node.metadata.resource_version
            facts = (version, view.machine, liveness, in_use[name], len(known), losses_held)
            if self._node_right.get(name) == facts:
                continue
            at, phase = self._node_written.get(name, (float("-inf"), seen.phase))
            if now.boot - at < self._settings.node_status_interval_s and phase_of(view, liveness) == phase:
                continue
            allocation = Allocation(**in_use[name]._asdict())
            if typical is None:
                typical = typical_speeds(each.speeds for each in snapshot.views.values())
            status = review_node(view, liveness, allocation, known, losses_held, now, typical)
            if status == seen:
                self._node_right[name] = facts
            else:
                yield partial(self._write_node, view, status)

    def _outcomes(self, snapshot: ClusterSnapshot) -> Mapping[str, Sequence[Outcome]]:
        found: dict[str, list[Outcome]] = defaultdict(list)
        for job in (*snapshot.jobs, *self._finished.values()):
            for node, outcome in outcomes_of(job):
                found[node].append(outcome)
        return found

    async def _write_node(self, node: NodeView, status: ComputeNodeStatus) -> None:
        self._node_written[node.name] = (self._clock().boot, status.phase)
        try:
            await self._cluster.write_node_status(node, status)
        except NotFound:
            # kopf's watch does not tell of what was deleted while it was broken.
            self._watched.drop_node(node.name)
            return
        except Conflict:
            del self._node_written[node.name]  # the watch will bring the newer one
            return
        except ApiError as error:
            log.error("write refused", extra={"node": node.name, "error": error})
            return
        if status.phase != node.node.status.phase:
            log.info("node", extra={"node": node.name, "phase": status.phase, "was": node.node.status.phase or "New"})
