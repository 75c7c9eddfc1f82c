"""How often a job and its node are written to, counted by the API server's audit log: exactly as often as is needed."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from cyxwiz_platform import Platform
from tests.audit import AGENT, OPERATOR, Write, writes
from tests.thread import TRAINS_WITHIN_S, digits, phase

NODE_INTERVAL_S = 10.0


def wait_until_written(log: Path, what: str, is_there: Callable[[list[Write]], bool]) -> list[Write]:
    deadline = time.monotonic() + TRAINS_WITHIN_S
    while not is_there(found := writes(log)):
        assert time.monotonic() < deadline, f"never written: {what}"
        time.sleep(0.1)
    return found


def is_progress(write: Write, before: Write | None) -> bool:
    """A report of a running job that is still running."""
    return write.by == AGENT and before is not None and write.state == before.state == "Running"


def without_progress(found: list[Write]) -> list[Write]:
    kept: list[Write] = []
    for before, write in zip([None, *found], found, strict=False):
        if not is_progress(write, before):
            kept.append(write)
    return kept


def of(found: list[Write], resource: str, name: str) -> list[Write]:
    return [write for write in found if write.resource == resource and write.name == name]


def events_of(found: list[Write], job: str) -> list[str]:
    about = [write.result for write in found if write.resource == "events"]
    return [event["reason"] for event in about if event["regarding"]["name"] == job]


def test_a_job_is_written_six_times_from_post_to_succeeded_and_told_of_by_two_events(
    thread: Platform, audit_log: Path
) -> None:
    for name in ("counted", "counted-after"):  # when the second has ended, whatever was late to the first is there
        thread.cluster.run_kubectl("create", "-f", "-", input=json.dumps(digits(name, epochs=20)))
        thread.wait_for(
            "trainingjob", name, phase("Succeeded"), what="Succeeded", within_s=TRAINS_WITHIN_S
        )  # fmt: skip
    found = wait_until_written(
        audit_log, "the Event of the second's end", lambda found: "Succeeded" in events_of(found, "counted-after")
    )
    for name in ("counted", "counted-after"):
        of_job = without_progress(of(found, "trainingjobs", name))
        assert [(write.by, write.verb, write.phase, write.state) for write in of_job] == [
            ("admin", "create", "Pending", None),
            (OPERATOR, "patch", "Bound", None),
            (AGENT, "patch", "Bound", "Running"),
            (OPERATOR, "patch", "Running", "Running"),
            (AGENT, "patch", "Running", "Succeeded"),
            (OPERATOR, "patch", "Succeeded", "Succeeded"),
        ]
        assert sorted(events_of(found, name)) == ["Bound", "Succeeded"]


def test_no_write_leaves_an_object_as_it_was(thread: Platform, audit_log: Path) -> None:
    """Of all that operator and agents have written since they started, by this test and those before it."""
    version: dict[tuple[str, str, str], str] = {}
    for write in writes(audit_log):
        what = (write.resource, write.result["metadata"].get("namespace", ""), write.result["metadata"]["uid"])
        in_vain = version.get(what) == write.version and write.by in (OPERATOR, AGENT)
        assert not in_vain, f"{write.by} wrote {write.asked} to {write.name} in vain"
        version[what] = write.version
    assert version, "the log was read"


def test_nobody_of_ours_touches_finalizers_or_annotations(thread: Platform, audit_log: Path) -> None:
    for write in writes(audit_log):
        if write.by in (OPERATOR, AGENT):
            touched = {"finalizers", "annotations"} & (write.asked.get("metadata") or {}).keys()
            assert not touched, f"{write.by} wrote {touched} of {write.resource} {write.name}"


def test_the_operator_writes_to_a_node_at_most_every_ten_seconds_but_for_changes_of_phase(
    thread: Platform, audit_log: Path
) -> None:
    nodes = [write for write in writes(audit_log) if write.resource == "computenodes"]
    by_node: dict[str, list[Write]] = defaultdict(list)
    shown: dict[str, str | None] = {}
    for write in nodes:
        if write.by == OPERATOR and write.phase == shown.get(write.name):
            by_node[write.name].append(write)
        shown[write.name] = write.phase
    assert set(thread.machines) <= shown.keys()
    for name, found in by_node.items():
        # One more than fits into the time: a request may take its time on its way, and so come late or early.
        span_s = (found[-1].at - found[0].at).total_seconds()
        assert len(found) <= 2 + span_s / NODE_INTERVAL_S, f"{len(found)} writes to {name} within {span_s:.0f} s"
