"""What the API server's audit log says of the writes to our resources: who wrote what, and what came of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

OPERATOR, AGENT = "cyxwiz-operator", "cyxwiz-agent"
POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {
            "level": "RequestResponse",
            "verbs": ["create", "update", "patch", "delete"],
            "resources": [{"group": group} for group in ("cyxwiz.io", "events.k8s.io")],
        },
        {"level": "None"},
    ],
}


def audit_flags(log: Path) -> list[str]:
    """Flags of an API server that notes every write before it is answered."""
    policy = log.with_name("policy.json")
    policy.write_text(json.dumps(POLICY))
    return [f"--audit-policy-file={policy}", f"--audit-log-path={log}", "--audit-log-mode=blocking"]


@dataclass(frozen=True)
class Write:
    """One write that the API server has taken."""

    by: str
    """Name of the service account, or of the user."""
    verb: str
    resource: str
    name: str
    asked: dict[str, Any]
    """What was sent."""
    result: dict[str, Any]
    """The object after it."""
    at: datetime

    @property
    def version(self) -> str:
        return self.result["metadata"]["resourceVersion"]

    @property
    def status(self) -> dict[str, Any]:
        return self.result.get("status") or {}

    @property
    def phase(self) -> str | None:
        return self.status.get("phase")

    @property
    def state(self) -> str | None:
        """What the agent says."""
        return (self.status.get("execution") or {}).get("state")


def writes(log: Path) -> list[Write]:
    """Every write taken so far but deletions and dry runs, in the order in which they were answered."""
    found: list[Write] = []
    for line in log.read_text().splitlines(keepends=True):
        if not line.endswith("\n"):
            break  # being written
        event = json.loads(line)
        if event["verb"] == "delete" or event["responseStatus"]["code"] >= 300:
            continue
        if "dryRun" in parse_qs(urlsplit(event["requestURI"]).query):
            continue
        found.append(
            Write(
                by=event["user"]["username"].rpartition(":")[2],
                verb=event["verb"],
                resource=event["objectRef"]["resource"],
                name=event["objectRef"].get("name") or event["responseObject"]["metadata"]["name"],
                asked=event["requestObject"],
                result=event["responseObject"],
                at=datetime.fromisoformat(event["requestReceivedTimestamp"]),
            )
        )
    return found
