"""The edges: patches out, objects in, HTTP, the command line."""

from __future__ import annotations

import logging
import socket

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyxwiz_operator import health, logs
from cyxwiz_operator.__main__ import parse
from cyxwiz_operator.cluster import difference
from cyxwiz_operator.job_stream import UNFINISHED, parse_job
from cyxwiz_operator.metrics import Metrics
from cyxwiz_operator.sweep import is_over
from cyxwiz_operator.views import JobView, Unreadable

from .builders import NOW, ago, make_job

objects = st.recursive(
    st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
).filter(lambda value: isinstance(value, dict))


def merge(target: object, patch: object) -> object:
    """RFC 7386, as the RFC writes it."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


@given(objects, objects)
def test_a_difference_is_the_patch_that_makes_it(before: dict[str, object], after: dict[str, object]) -> None:
    assert merge(before, difference(before, after)) == after
    assert difference(after, after) == {}


def test_a_job_of_a_newer_version_is_read_and_a_broken_one_says_why() -> None:
    item = {
        "metadata": {"name": "odd", "namespace": "team-a", "uid": "u", "resourceVersion": "1"},
        "spec": {"model": {"name": "cnn"}, "dataset": {"uri": "builtin://digits"}, "fromTheFuture": 1},
    }
    assert isinstance(parse_job(item), JobView)
    again = parse_job(item | {"metadata": item["metadata"] | {"uid": "v"}})
    assert isinstance(again, JobView)
    assert again.job.spec is parse_job(item).job.spec, "jobs that ask for the same share what was read"  # pyright: ignore[reportAttributeAccessIssue]  # both are views
    unseen = [parse_job(item | {"status": {"phase": "Pending"}}) for _ in range(2)]
    assert unseen[0].status is unseen[1].status, "and so do those that nobody has written to"
    item["spec"]["epochs"] = "many"
    broken = parse_job(item)
    assert isinstance(broken, Unreadable)
    assert broken.problem.startswith("spec.epochs: Input should be a valid integer")
    assert broken.problem.endswith("(got 'many')")


def test_finished_jobs_leave_the_watch() -> None:
    assert UNFINISHED == "status.phase!=Cancelled,status.phase!=Failed,status.phase!=Succeeded"


@pytest.mark.parametrize(
    ("ttl_s", "age_s", "over"), [(None, 10**6, False), (60, 59, False), (60, 60, True), (0, 0, True)]
)
def test_a_finished_job_is_kept_for_its_time(ttl_s: int | None, age_s: float, over: bool) -> None:
    job = make_job(ttlSecondsAfterFinished=ttl_s, status={"phase": "Failed", "finishedAt": ago(age_s)})
    assert is_over(job, NOW) is over


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("shared", [True, False])
async def test_probes_and_metrics_answer(shared: bool) -> None:
    problem: list[str | None] = [None]
    health_port = free_port()
    metrics_port = health_port if shared else free_port()
    metrics = Metrics()
    metrics.passes.inc()
    async with (
        health.serve(
            healthy=lambda: problem[0],
            ready=lambda: "not listed yet",
            metrics=metrics,
            health_port=health_port,
            metrics_port=metrics_port,
        ),
        aiohttp.ClientSession() as session,
    ):

        async def get(port: int, path: str) -> tuple[int, str]:
            async with session.get(f"http://127.0.0.1:{port}{path}") as response:
                return response.status, await response.text()

        assert await get(health_port, "/healthz") == (200, "ok\n")
        assert await get(health_port, "/readyz") == (503, "not listed yet\n")
        problem[0] = "no pass has finished for 61 s"
        assert await get(health_port, "/healthz") == (503, "no pass has finished for 61 s\n")
        status, text = await get(metrics_port, "/metrics")
        assert status == 200
        assert "cyxwiz_passes_total 1.0" in text


def test_the_command_line_sets_what_it_names() -> None:
    settings = parse(["--kubeconfig", "/x", "--namespace", "other", "--health-port", "1", "--metrics-port", "2"])
    assert (str(settings.kubeconfig), settings.namespace) == ("/x", "other")
    assert (settings.health_port, settings.metrics_port) == (1, 2)


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"])
    text = capsys.readouterr().out
    for option in ("--kubeconfig", "--namespace", "--health-port", "--metrics-port", "--log-level", "--log-format"):
        assert option in text


def test_a_log_line_carries_its_facts() -> None:
    record = logging.makeLogRecord({"msg": "bound", "levelname": "INFO", "job": "team-a/digits", "why": "two words"})
    assert logs.TextFormatter().format(record).endswith('INFO bound job=team-a/digits why="two words"')
    assert '"job": "team-a/digits"' in logs.JsonFormatter().format(record)
