"""What a Kubernetes Node says is heard: cordons, taints, and its end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cyxwiz_crds.compute_node import Allocation, Owner
from cyxwiz_operator.cluster import parse_machine
from cyxwiz_operator.collecting import collect
from cyxwiz_operator.node_review import review_node
from cyxwiz_operator.settings import Settings
from cyxwiz_operator.views import Liveness, NodeView
from cyxwiz_operator.watched import Watched

from .builders import NOW, make_bound_job, make_job, make_leases, make_node, make_table
from .test_control_loop import World


def on_machine(
    node: NodeView, *taints: tuple[str, str], cordoned: bool = False, cordon_drains: bool = False
) -> NodeView:
    spec: dict[str, Any] = {"taints": [{"key": key, "effect": effect} for key, effect in taints]}
    item = {"metadata": {"name": node.name}, "spec": spec | {"unschedulable": cordoned}}
    return replace(node, machine=parse_machine(item, Settings().tolerated_taints, cordon_drains))


@pytest.mark.parametrize(
    ("node", "phase"),
    [
        (on_machine(make_node()), "Online"),
        (on_machine(make_node(), cordoned=True), "Unschedulable"),
        (on_machine(make_node(), ("maintenance", "NoSchedule")), "Unschedulable"),
        (on_machine(make_node(), ("maintenance", "PreferNoSchedule")), "Online"),
        (on_machine(make_node(), ("maintenance", "NoExecute")), "Draining"),
        (on_machine(make_node(drain=True)), "Draining"),
        (on_machine(make_node(), cordoned=True, cordon_drains=True), "Draining"),
        (on_machine(make_node(cordonDrains=True), cordoned=True), "Draining"),
        (on_machine(make_node(cordonDrains=False), cordoned=True, cordon_drains=True), "Unschedulable"),
        (on_machine(make_node(cordonDrains=True), cordon_drains=True), "Online"),
        (make_node(drain=True), "Draining"),
        (on_machine(make_node(), ("nvidia.com/gpu", "NoSchedule"), ("cyxwiz.io/dedicated", "NoSchedule")), "Online"),
        (on_machine(make_node(), ("node.kubernetes.io/unreachable", "NoExecute")), "Online"),
        (on_machine(make_node(), ("node.kubernetes.io/disk-pressure", "NoSchedule")), "Unschedulable"),
    ],
)
def test_a_node_is_closed_or_drained_as_its_machine_says(node: NodeView, phase: str) -> None:
    assert make_table(node).unschedulable.tolist() == [phase != "Online"]
    status = review_node(node, Liveness.ONLINE, Allocation(), [], False, NOW)
    assert status.phase == phase
    if because := node.draining_because or node.closed_because:
        assert because in (status.summary or "")


def test_a_machine_and_its_node_find_each_other_in_any_order() -> None:
    cordoned = on_machine(make_node(), cordoned=True).machine
    assert cordoned is not None
    for first_the_node in (True, False):
        watched = Watched()
        if first_the_node:
            watched.put_node(make_node())
            watched.put_machine(cordoned)
        else:
            watched.put_machine(cordoned)
            watched.put_node(make_node())
        assert watched.nodes["node-a"].closed_because
        watched.drop_machine("node-a")
        assert watched.nodes["node-a"].closed_because is None


def test_a_heartbeat_of_a_kubelet_wakes_nobody() -> None:
    watched = Watched()
    machine = on_machine(make_node()).machine
    assert machine is not None
    watched.put_node(make_node())
    watched.put_machine(machine)
    watched.bell.clear()
    watched.put_machine(replace(machine))
    assert not watched.bell.is_set()


async def test_jobs_of_a_drained_node_are_told_to_leave_and_those_not_started_go_at_once() -> None:
    runs = make_bound_job("runs", execution={"state": "Running"})
    world = World(runs, make_bound_job("bound"), make_job("new"), nodes=(make_node(drain=True), make_node("node-b")))
    await world.loop.one_pass()
    world.echo()
    order = world.job("runs").status.assignment
    assert order is not None
    assert (order.node, order.intent, order.reason) == ("node-a", "Yield", "Draining")
    for name in ("bound", "new"):
        assignment = world.job(name).status.assignment
        assert assignment is not None
        assert assignment.node == "node-b"
    writes = dict(world.cluster.writes)
    await world.loop.one_pass()
    assert world.cluster.writes == writes


@pytest.mark.parametrize(
    ("owned", "alive", "exists", "deleted"),
    [(True, False, False, True), (True, True, False, False), (True, False, True, False), (False, False, False, False)],
)
async def test_only_a_silent_node_whose_machine_is_gone_is_collected(
    owned: bool, alive: bool, exists: bool, deleted: bool
) -> None:
    class Nodes:
        gone: list[str] = []

        async def machine_exists(self, name: str) -> bool:
            return exists

        async def delete_node(self, node: NodeView) -> None:
            self.gone = [node.name]

    node = make_node()
    owners = [Owner(kind="Node", name="node-a")] if owned else []
    metadata = node.node.metadata.model_copy(update={"owner_references": owners})
    watched, cluster = Watched(), Nodes()
    watched.put_node(NodeView(node.node.model_copy(update={"metadata": metadata})))
    leases = make_leases("node-a") if alive else make_leases()
    await collect(cluster, watched, leases, NOW)  # pyright: ignore[reportArgumentType]  # the methods that are used
    assert cluster.gone == (["node-a"] if deleted else [])
