"""The real operator's /metrics after real jobs: the questions of docs/design/metrics.md have answers."""

from __future__ import annotations

import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from cyxwiz_platform import Platform
from tests.thread import apply_and_wait, digits, finished, stepping, wait_warm

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(thread: Platform) -> Samples:
    """(series, labels) to value."""
    with urllib.request.urlopen(f"http://127.0.0.1:{thread.metrics_port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def grown(before: Samples, after: Samples, name: str, **labels: str) -> float:
    """By how much the sum over all series of this name with these labels has grown."""
    wanted = set(labels.items())
    total = [sum(v for (n, has), v in seen.items() if n == name and wanted <= has) for seen in (before, after)]
    return total[1] - total[0]


def test_one_good_and_one_cancelled_job_leave_their_traces_and_no_name(thread: Platform) -> None:
    wait_warm(thread)
    before = scrape(thread)
    apply_and_wait(thread, digits("measured-well"), finished, "a final phase")
    apply_and_wait(thread, digits("measured-cancelled", epochs=10_000), stepping, "training")
    thread.cluster.run_kubectl("patch", "tj", "measured-cancelled", "--type=merge", "-p", '{"spec":{"cancel":true}}')
    thread.wait_for("trainingjob", "measured-cancelled", finished, what="a final phase")
    apply_and_wait(thread, digits("measured-mistake", batchSize=31, cpus=9), lambda job: True, "applied")
    thread.wait_for(
        "trainingjob", "measured-mistake", lambda job: job["status"].get("reason") == "NoNodeFits", what="told"
    )
    after = scrape(thread)

    assert grown(before, after, "cyxwiz_attempts_total", outcome="Succeeded") == 1
    assert grown(before, after, "cyxwiz_attempts_total", outcome="CancelledByUser") == 1
    assert grown(before, after, "cyxwiz_bind_latency_seconds_count") == 2
    assert grown(before, after, "cyxwiz_queue_wait_seconds_count") == 2
    assert grown(before, after, "cyxwiz_time_to_first_step_seconds_count") == 2
    assert 0 < grown(before, after, "cyxwiz_start_seconds_sum") < 180
    assert grown(before, after, "cyxwiz_api_writes_total", kind="bind", result="ok") == 2
    assert grown(before, after, "cyxwiz_decision_seconds_count") > 0
    assert after["cyxwiz_queue_jobs", frozenset({("reason", "NoNodeFits")})] == 1
    assert after["cyxwiz_nodes", frozenset({("phase", "Online")})] == 2
    values = {value for _, labels in after for _, value in labels}
    assert not [value for value in values if "measured-" in value or "default" in value or "node-a" in value]
