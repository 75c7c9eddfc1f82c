"""What is told of objects that went away, or were replaced by a namesake, while nobody watched."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from cyxwiz_kube.errors import from_status
from cyxwiz_kube.listing import Change, list_and_watch


def item(name: str, uid: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "team-a", "uid": uid, "resourceVersion": "1"}}


class Server:
    """Lists what is there in pages of one; every watch has fallen behind."""

    def __init__(self, *lists: list[dict[str, Any]]) -> None:
        self._lists = list(lists)
        self._now: list[dict[str, Any]] = []
        self.asked = 0

    async def list(
        self, path: str, *, field_selector: str, label_selector: str, limit: int, continue_from: str
    ) -> dict[str, Any]:
        self.asked += 1
        if not continue_from:
            self._now = self._lists.pop(0)
        at = int(continue_from or 0)
        more = str(at + 1) if at + 1 < len(self._now) else ""
        return {"metadata": {"resourceVersion": "9", "continue": more}, "items": self._now[at : at + 1]}

    async def open_stream(self, path: str, query: dict[str, str], *, silence_s: float) -> Any:
        raise from_status(410, {"reason": "Expired", "message": "too old resource version"})


async def told(server: Server, until: int) -> list[tuple[str, str]]:
    """(kind, uid) of everything up to so many ends of lists."""
    found: list[tuple[str, str]] = []
    changes = list_and_watch(server, "/x", field_selector="")  # pyright: ignore[reportArgumentType]  # the methods that are used
    async for change in changes:
        found.append(_short(change))
        if sum(kind == "synced" for kind, _ in found) == until:
            return found
    return found


def _short(change: Change) -> tuple[str, str]:
    return change.kind.value, change.object.get("metadata", {}).get("uid", "")


async def test_an_object_replaced_by_a_namesake_is_told_as_gone_before_it() -> None:
    """Readers that go by names would drop the new one otherwise."""
    server = Server([item("a", "old"), item("b", "b")], [item("b", "b"), item("a", "new")])
    assert await told(server, until=2) == [
        ("present", "old"),
        ("present", "b"),
        ("synced", ""),
        ("present", "b"),
        ("gone", "old"),
        ("present", "new"),
        ("synced", ""),
    ]


async def test_what_is_not_in_the_new_list_is_gone_before_it_counts_as_complete() -> None:
    server = Server([item("a", "a"), item("b", "b")], [item("b", "b")])
    assert (await told(server, until=2))[3:] == [("present", "b"), ("gone", "a"), ("synced", "")]


async def test_the_next_page_is_under_way_while_one_is_read() -> None:
    server = Server([item("a", "a"), item("b", "b"), item("c", "c")])
    changes = list_and_watch(server, "/x", field_selector="")  # pyright: ignore[reportArgumentType]  # the methods that are used
    asked = [(_short(change), server.asked) async for change in _first(changes, 4)]
    assert asked == [
        (("present", "a"), 2),
        (("present", "b"), 3),
        (("present", "c"), 3),
        (("synced", ""), 3),
    ]


async def _first(changes: AsyncIterator[Change], count: int) -> AsyncIterator[Change]:
    async for change in changes:
        yield change
        count -= 1
        if not count:
            return
