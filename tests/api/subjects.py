"""One token's view of the API server: which verbs on which resource it is let through with."""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass, field
from typing import Any

import aiohttp

VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
OF_STATUS = ("get", "update", "patch")


@dataclass(frozen=True)
class Row:
    """A resource of the table, and what a write to it carries."""

    collection: str | None
    """None for a subresource, which has none."""
    path: str
    new: dict[str, Any] = field(default_factory=dict)
    patch: dict[str, Any] = field(default_factory=dict)
    is_proxy: bool = False
    """Nothing is stored there: whoever gets as far as "no such endpoint" was let through."""

    @property
    def verbs(self) -> tuple[str, ...]:
        return OF_STATUS if self.collection is None else VERBS


class Subject:
    """One token's view of the API server."""

    def __init__(self, server: str, tls: ssl.SSLContext, token: str) -> None:
        self._session = aiohttp.ClientSession(
            base_url=server,
            connector=aiohttp.TCPConnector(ssl=tls, limit=8),
            headers={"Authorization": f"Bearer {token}"},
            timeout=aiohttp.ClientTimeout(total=60),
        )

    async def close(self) -> None:
        await self._session.close()

    async def ask(self, method: str, path: str, body: Any = None, **query: str) -> tuple[int, dict[str, Any]]:
        """Status and answer; of a watch that has begun only the status."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        data = None if body is None else json.dumps(body)
        async with self._session.request(method, path, data=data, params=query, headers={"Content-Type": kind}) as got:
            begun = "watch" in query and got.status == 200
            return got.status, {} if begun else await got.json(content_type=None)

    async def may(self, verb: str, row: Row, present: dict[str, Any]) -> bool:
        """Whether the server would do it. Raises AssertionError for an answer that is neither yes nor a refusal."""
        collection = row.collection or ""
        match verb:
            case "get":
                status, answer = await self.ask("GET", row.path)
            case "list":
                status, answer = await self.ask("GET", collection, limit="1")
            case "watch":
                status, answer = await self.ask("GET", collection, watch="1", timeoutSeconds="1")
            case "create":
                status, answer = await self.ask("POST", collection, row.new, dryRun="All")
            case "update":
                status, answer = await self.ask("PUT", row.path, present, dryRun="All")
            case "patch":
                status, answer = await self.ask("PATCH", row.path, row.patch, dryRun="All")
            case "delete":
                status, answer = await self.ask("DELETE", row.path, dryRun="All")
            case _:
                status, answer = await self.ask("DELETE", collection, dryRun="All")
        if status < 300 or (verb == "create" and answer.get("reason") == "AlreadyExists"):
            return True
        if row.is_proxy and answer.get("reason") in ("NotFound", "ServiceUnavailable"):
            return True
        by_policy = status == 422 and "denied request" in answer["message"]
        assert status == 403 or by_policy, f"{verb} {row.path}: {status} {answer}"
        return False

    async def is_authorized(self, group: str, resource: str, verb: str, namespace: str) -> bool:
        """What RBAC says, which admission policies may narrow further."""
        resource, _, subresource = resource.partition("/")
        attributes = {"group": group, "resource": resource, "subresource": subresource, "verb": verb}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes | {"namespace": namespace}},
        }
        _, answer = await self.ask("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
        return answer["status"]["allowed"]
