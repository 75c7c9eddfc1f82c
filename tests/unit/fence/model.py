"""An explicit-state model of the leases and the fence: one job, two nodes, lost and delayed messages, restarts.

Node 0 may be cut off, delayed and restarted; node 1 is healthy, which keeps the space small. Time goes in ticks.
Every reachable state is visited; in none of them may two trainers of the job compute. Each rule can be switched off,
and then such a state must be found: a rule without which nothing goes wrong is no rule.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

D = 2  # ticks a job may compute after the last acknowledged renewal was sent
E = 3  # ticks without an observed change until the operator gives a node up
ATTEMPTS = 2
EPOCHS = 3


@dataclass(frozen=True)
class Rules:
    """What the protocol demands; see docs/design/agent.md and docs/design/operator.md."""

    lease_is_cleared_by_compare_and_swap: bool = True
    lease_is_read_freshly_before_it_is_cleared: bool = True
    grants_end_with_their_epoch: bool = True
    start_needs_an_accepted_report: bool = True
    deadline_counts_from_when_the_renewal_was_sent: bool = True
    trainer_watches_its_own_deadline: bool = True
    new_epoch_is_confirmed_by_a_write: bool = True
    bind_carries_the_version_read: bool = True
    lease_is_read_again_after_the_job: bool = True
    silence_before_loss: int = E


class Message(NamedTuple):
    """A report under way, or its answer."""

    attempt: int
    epoch: int
    answered: bool


class Renewal(NamedTuple):
    """A renewal of the Lease under way, or its answer; `age` in ticks since it was sent."""

    epoch: int
    age: int
    answer: str  # "", "ok" or "refused"


class Node(NamedTuple):
    """One node: its agent, and the trainer of the job there."""

    epoch: int = 1  # 0: the Lease is not held
    age: int = 0  # ticks since the last acknowledged renewal was sent, at most D
    renewal: Renewal | None = None
    heard: int = 0  # newest attempt the watch has told
    report: Message | None = None
    trainer: int = 0  # attempt that runs here, 0: none
    frozen: bool = False
    confirmed: int = 1  # epoch in which the trainer was last allowed to compute


class Lease(NamedTuple):
    """The Lease on the server, and what the operator has not seen of it yet."""

    holder: int = 1  # epoch of the holder, 0: nobody
    unseen: bool = False
    last: int = 1  # epochs are never used twice


class State(NamedTuple):
    """Everything."""

    attempt: int = 1  # of the job's assignment
    bound_to: int = 0
    claimed: bool = False
    version_read: bool = True  # the operator's view of the job is the newest one
    fenced: bool = False  # node 0's Lease had no holder when the operator last read it, which was after the job
    silent: int = 0  # ticks since the operator last saw node 0's Lease change
    leases: tuple[Lease, Lease] = (Lease(), Lease())
    nodes: tuple[Node, Node] = (Node(), Node())


def computes(rules: Rules, node: Node) -> bool:
    """True while the job's steps are taken on this node."""
    in_time = node.age < D or not rules.trainer_watches_its_own_deadline
    granted = node.confirmed == node.epoch or not rules.grants_end_with_their_epoch
    return bool(node.trainer) and not node.frozen and in_time and granted


def trace_to_overlap(rules: Rules) -> list[str] | None:
    """The steps to a state in which both nodes compute; None when no reachable state is one."""
    start = State()
    came_from: dict[State, tuple[State, str] | None] = {start: None}
    queue = deque([start])
    while queue:
        state = queue.popleft()
        if all(computes(rules, node) for node in state.nodes):
            return _steps_to(state, came_from)
        for step, after in steps(rules, state):
            if after not in came_from:
                came_from[after] = (state, step)
                queue.append(after)
    return None


def _steps_to(state: State, came_from: dict[State, tuple[State, str] | None]) -> list[str]:
    trace: list[str] = []
    while (before := came_from[state]) is not None:
        state, step = before
        trace.append(step)
    return trace[::-1]


def steps(rules: Rules, state: State) -> Iterator[tuple[str, State]]:
    """Everything that may happen next."""
    yield "a tick passes", _tick(rules, state)
    yield from _renewals(rules, state)
    for index in (0, 1):
        yield from _node_steps(rules, state, index)
    yield from _operator_steps(rules, state)


def _tick(rules: Rules, state: State) -> State:
    node = state.nodes[0]
    age = min(node.age + 1, D)
    late = bool(node.trainer) and age >= D and rules.trainer_watches_its_own_deadline
    renewal = node.renewal and node.renewal._replace(age=min(node.renewal.age + 1, D))
    aged = node._replace(age=age, renewal=renewal, frozen=node.frozen or late)
    silent = min(state.silent + 1, rules.silence_before_loss)
    return state._replace(nodes=(aged, state.nodes[1]), silent=silent)


def _renewals(rules: Rules, state: State) -> Iterator[tuple[str, State]]:
    """Node 0's Lease as its agent sees it."""
    node, lease = state.nodes[0], state.leases[0]

    def after(changed: Node, changed_lease: Lease = lease) -> State:
        return state._replace(nodes=(changed, state.nodes[1]), leases=(changed_lease, state.leases[1]))

    if node.epoch and node.renewal is None:
        yield "a renewal is sent", after(node._replace(renewal=Renewal(node.epoch, 0, "")))
    if (renewal := node.renewal) is not None:
        yield "a renewal or its answer is lost", after(node._replace(renewal=None))
        if not renewal.answer:
            if lease.holder == renewal.epoch or not rules.lease_is_cleared_by_compare_and_swap:
                answered = node._replace(renewal=renewal._replace(answer="ok"))
                yield "the renewal is written", after(answered, Lease(renewal.epoch, True, lease.last))
            else:
                yield "the renewal is refused", after(node._replace(renewal=renewal._replace(answer="refused")))
        elif renewal.answer == "refused":
            yield (
                "the agent learns that it is fenced",
                after(node._replace(epoch=0, renewal=None, frozen=bool(node.trainer), confirmed=0)),
            )
        elif renewal.epoch == node.epoch or not rules.grants_end_with_their_epoch:
            age = renewal.age if rules.deadline_counts_from_when_the_renewal_was_sent else 0
            yield "the renewal is acknowledged", after(node._replace(age=min(age, node.age), renewal=None))
    if lease.last < EPOCHS:
        fresh = Lease(lease.last + 1, True, lease.last + 1)
        if node.epoch == 0:
            yield "the Lease is acquired anew", after(node._replace(epoch=lease.last + 1, age=0, confirmed=0), fresh)
        elif lease.holder == node.epoch:
            restarted = Node(
                epoch=lease.last + 1,
                age=node.age if node.trainer else 0,
                trainer=node.trainer,
                frozen=node.frozen,
                confirmed=0,
            )
            yield "the agent restarts", after(restarted, fresh)


def _node_steps(rules: Rules, state: State, index: int) -> Iterator[tuple[str, State]]:
    """What the agent of a node does about the job."""
    node = state.nodes[index]
    name = f"n{index}"

    def after(changed: Node, **more: object) -> State:
        nodes = (changed, state.nodes[1]) if index == 0 else (state.nodes[0], changed)
        return state._replace(nodes=nodes, **more)

    may_act = node.epoch and node.age < D
    newest = range(1 if index == 0 else state.attempt, state.attempt + 1)
    for attempt in newest:  # a watch may lag, and tell of another node's attempt
        if node.heard < attempt and not node.trainer:
            yield f"{name} hears of attempt {attempt}", after(node._replace(heard=attempt))
    if node.report is None and may_act:
        if node.heard and not node.trainer:
            yield f"{name} reports", after(node._replace(report=Message(node.heard, node.epoch, False)))
            if not rules.start_needs_an_accepted_report:
                yield f"{name} starts unasked", after(_granted(node, node.heard))
        if node.trainer and node.confirmed != node.epoch:
            if rules.new_epoch_is_confirmed_by_a_write:
                yield f"{name} asks to go on", after(node._replace(report=Message(node.trainer, node.epoch, False)))
            elif state.bound_to == index and state.attempt == node.trainer:
                yield f"{name} reads that it may go on", after(_granted(node, node.trainer))
            else:
                yield f"{name} reads that it may not", after(node._replace(trainer=0, frozen=False))
    if node.report is not None:
        yield from _report_steps(rules, state, index, node.report)


def _report_steps(rules: Rules, state: State, index: int, report: Message) -> Iterator[tuple[str, State]]:
    node = state.nodes[index]
    name = f"n{index}"

    def after(changed: Node, **more: object) -> State:
        nodes = (changed, state.nodes[1]) if index == 0 else (state.nodes[0], changed)
        return state._replace(nodes=nodes, **more)

    quiet = node._replace(report=None)
    if index == 0:
        yield f"a report of {name} is lost", after(quiet)
    if not report.answered:
        if state.bound_to == index and report.attempt == state.attempt:
            answered = node._replace(report=report._replace(answered=True))
            yield f"a report of {name} is accepted", after(answered, claimed=True, version_read=False)
        else:
            yield f"a report of {name} is refused", after(quiet._replace(heard=0, trainer=0, frozen=False))
    elif node.epoch and node.age < D and (report.epoch == node.epoch or not rules.grants_end_with_their_epoch):
        yield f"{name} computes attempt {report.attempt}", after(_granted(quiet, report.attempt))
    else:
        yield f"{name} drops a late answer", after(quiet)


def _granted(node: Node, attempt: int) -> Node:
    return node._replace(trainer=attempt, frozen=False, confirmed=node.epoch)


def _operator_steps(rules: Rules, state: State) -> Iterator[tuple[str, State]]:
    lease = state.leases[0]
    seen = (lease._replace(unseen=False), state.leases[1])
    if lease.unseen:
        yield "the operator sees the Lease", state._replace(leases=seen, silent=0, fenced=False)
    if not state.version_read:
        still = state.fenced and not rules.lease_is_read_again_after_the_job
        yield "the operator sees the job", state._replace(version_read=True, fenced=still)
    yield "the operator restarts", state._replace(silent=0, fenced=False)
    if state.bound_to != 0 or state.attempt >= ATTEMPTS:
        return
    if state.silent >= rules.silence_before_loss and not state.fenced:
        if not lease.holder:
            yield "the operator reads that nobody holds the Lease", state._replace(leases=seen, fenced=True)
        elif lease.unseen and rules.lease_is_read_freshly_before_it_is_cleared:
            yield "the operator reads the Lease", state._replace(leases=seen, silent=0)
        else:
            holder = 0 if rules.lease_is_cleared_by_compare_and_swap else lease.holder
            cleared = (lease._replace(holder=holder, unseen=False), state.leases[1])
            yield "the operator fences n0", state._replace(leases=cleared, fenced=True)
    if not state.version_read and rules.bind_carries_the_version_read:
        return
    moved = state._replace(attempt=state.attempt + 1, claimed=False, version_read=True)
    if state.fenced:
        yield "the operator binds to n1", moved._replace(bound_to=1)
    # What is unclaimed in the operator's view: without a version that view may be older than the claim.
    if not state.claimed or not rules.bind_carries_the_version_read:
        yield "unclaimed: the operator binds to n1", moved._replace(bound_to=1)
