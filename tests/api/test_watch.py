"""List-and-watch on a real API server: a reader who follows the stream knows exactly what exists."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from cyxwiz_kube import Change, ChangeKind, Kube, paths
from cyxwiz_kube import client as kube_client


def job(name: str) -> dict[str, Any]:
    spec = {"model": {"name": "cnn"}, "dataset": {"uri": "builtin://digits"}}
    return {"apiVersion": "cyxwiz.io/v1alpha1", "kind": "TrainingJob", "metadata": {"name": name}, "spec": spec}


async def take(stream: AsyncIterator[Change]) -> tuple[ChangeKind, str]:
    async with asyncio.timeout(20):
        change = await anext(stream)
    return change.kind, change.object.get("metadata", {}).get("name", "")


async def test_the_list_comes_first_then_synced_then_changes(admin: Kube, namespace: str) -> None:
    await admin.create(paths.training_jobs(namespace), job("a"))
    stream = admin.watch(paths.training_jobs(namespace))
    assert await take(stream) == (ChangeKind.PRESENT, "a")
    assert await take(stream) == (ChangeKind.SYNCED, "")
    made = await admin.create(paths.training_jobs(namespace), job("b"))
    assert await take(stream) == (ChangeKind.PRESENT, "b")
    await admin.delete(paths.training_job(namespace, "b"), uid=made["metadata"]["uid"])
    assert await take(stream) == (ChangeKind.GONE, "b")


async def test_an_object_that_leaves_the_selector_is_told_as_gone(admin: Kube, namespace: str) -> None:
    await admin.create(paths.training_jobs(namespace), job("a"))
    stream = admin.watch(paths.training_jobs(namespace), field_selector="status.phase!=Succeeded")
    assert [await take(stream), await take(stream)] == [(ChangeKind.PRESENT, "a"), (ChangeKind.SYNCED, "")]
    path = paths.status(paths.training_job(namespace, "a"))
    await admin.merge_patch(path, {"status": {"phase": "Succeeded"}})
    assert await take(stream) == (ChangeKind.GONE, "a")


async def test_a_reader_that_fell_behind_lists_again_and_learns_what_went_away(
    admin: Kube, namespace: str, monkeypatch: Any
) -> None:
    """The stream is told 410 Gone once; what was deleted meanwhile must not live on in the reader's mind."""
    made = await admin.create(paths.training_jobs(namespace), job("a"))
    real = admin.open_stream
    opened = 0

    async def expired_once(path: str, query: dict[str, str], *, silence_s: float) -> Any:
        nonlocal opened
        opened += 1
        if opened == 1:
            await admin.delete(paths.training_job(namespace, "a"), uid=made["metadata"]["uid"])
            raise kube_client.from_status(410, {"reason": "Expired", "message": "too old resource version"})
        return await real(path, query, silence_s=silence_s)

    monkeypatch.setattr(admin, "open_stream", expired_once)
    stream = admin.watch(paths.training_jobs(namespace))
    assert [await take(stream) for _ in range(4)] == [
        (ChangeKind.PRESENT, "a"),
        (ChangeKind.SYNCED, ""),
        (ChangeKind.GONE, "a"),
        (ChangeKind.SYNCED, ""),
    ]
