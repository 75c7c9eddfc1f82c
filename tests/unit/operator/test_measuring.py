"""What is counted, when: from the changes that a pass writes and the watch shows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from cyxwiz_operator.decisions import decide
from cyxwiz_operator.lifecycle import StatusChange, review, told_to_yield
from cyxwiz_operator.measuring import count_change, count_first_step
from cyxwiz_operator.metrics import Metrics
from cyxwiz_operator.views import JobView, Liveness

from .builders import NOW, START, ago, later, make_bound_job, make_job, make_node, make_snapshot


def samples(metrics: Metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    """(name, label values) to value."""
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {
        (sample.name, tuple(value for name, value in sorted(sample.labels.items()) if name != "le")): sample.value
        for family in families
        for sample in family.samples
        if not sample.name.endswith(("_created", "_bucket"))
    }


def counted(*changes: StatusChange, now: Any = NOW) -> dict[tuple[str, tuple[str, ...]], float]:
    metrics = Metrics()
    for change in changes:
        count_change(metrics, change, now)
    return samples(metrics)


def binding_of(job: JobView) -> StatusChange:
    (bind,) = decide(make_snapshot([job], [make_node()]), most_binds=1).binds
    return bind


def test_the_documented_series_are_those_of_the_module() -> None:
    document = (Path(__file__).parents[3] / "docs/design/metrics.md").read_text()
    families = text_string_to_metric_families(Metrics().exposition().decode())
    names = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in families
        if not family.name.endswith("_created")
    }
    assert set(re.findall(r"^\|[^|]+\| `(cyxwiz_\w+)`", document, re.MULTILINE)) == names


def test_a_wait_is_counted_under_the_reason_that_was_told_last() -> None:
    waited = make_job(age_s=90, status={"phase": "Queued", "reason": "NoNodeFree"})
    seen = counted(binding_of(waited), binding_of(make_job(age_s=3)))
    assert seen["cyxwiz_queue_wait_seconds_sum", ("NoNodeFree",)] == 90
    assert seen["cyxwiz_queue_wait_seconds_sum", ("None",)] == 3
    assert seen["cyxwiz_bind_latency_seconds_count", ()] == 2


def test_a_retry_has_waited_since_it_was_released_and_is_no_first_binding() -> None:
    scheduled = {"type": "Scheduled", "status": "False", "reason": "Retrying", "lastTransitionTime": ago(20)}
    status = {"phase": "Queued", "reason": "NoNodeFree", "attempt": 1, "conditions": [scheduled]}
    seen = counted(binding_of(make_job(age_s=900, status=status)))
    assert seen["cyxwiz_queue_wait_seconds_sum", ("NoNodeFree",)] == 20
    assert seen["cyxwiz_bind_latency_seconds_count", ()] == 0


def test_the_error_of_an_estimate_is_measured_at_the_binding() -> None:
    scheduling = {"estimatedStart": ago(40), "confidence": "High"}
    seen = counted(binding_of(make_job(age_s=900, status={"phase": "Queued", "scheduling": scheduling})))
    assert seen["cyxwiz_start_estimate_error_seconds_sum", ("later", "High")] == 40
    early = {"estimatedStart": later(25).timestamp, "confidence": "Low"}
    seen = counted(binding_of(make_job(age_s=900, status={"phase": "Queued", "scheduling": early})))
    assert seen["cyxwiz_start_estimate_error_seconds_sum", ("earlier", "Low")] == 25


def test_a_preemption_is_counted_once_and_its_lost_training_when_it_has_left() -> None:
    progress = {"step": 300, "elapsedSeconds": 60}
    checkpoint = {"step": 200, "epoch": 2, "digest": "d", "uri": "node://node-a/x"}
    execution = {"state": "Running", "startedAt": ago(60), "progress": progress, "checkpoint": checkpoint}
    running = make_bound_job(execution=execution)
    told = told_to_yield(running, NOW, "Preempted", "words")
    assert told is not None
    assert counted(told)["cyxwiz_preemptions_total", ()] == 1
    order = {"intent": "Yield", "reason": "Preempted"}
    left = review(make_bound_job(execution={**execution, "state": "Yielded"}, assignment=order), Liveness.ONLINE, NOW)
    assert left is not None
    seen = counted(left)
    assert seen["cyxwiz_preemptions_total", ()] == 0
    assert seen["cyxwiz_attempts_total", ("Preempted",)] == 1
    assert seen["cyxwiz_lost_training_seconds_total", ("Preempted",)] == 20


def test_training_that_succeeded_is_not_lost() -> None:
    progress = {"step": 300, "elapsedSeconds": 60}
    done = review(make_bound_job(execution={"state": "Succeeded", "progress": progress}), Liveness.ONLINE, NOW)
    assert done is not None
    seen = counted(done)
    assert seen["cyxwiz_attempts_total", ("Succeeded",)] == 1
    assert not [name for name, _ in seen if name.startswith("cyxwiz_lost_training")]


def test_the_first_step_is_counted_when_the_watch_first_shows_it() -> None:
    metrics = Metrics()
    before = make_bound_job(age_s=10, bound_s_ago=4, execution={"state": "Running"})
    trains = make_bound_job(age_s=10, bound_s_ago=4, execution={"state": "Running", "firstStepAt": START.isoformat()})
    count_first_step(metrics, None, trains)
    assert samples(metrics)["cyxwiz_start_seconds_count", ()] == 0, "it happened before this operator looked"
    count_first_step(metrics, before, trains)
    count_first_step(metrics, trains, trains)
    seen = samples(metrics)
    assert (seen["cyxwiz_start_seconds_count", ()], seen["cyxwiz_start_seconds_sum", ()]) == (1, 4)
    assert seen["cyxwiz_time_to_first_step_seconds_sum", ()] == 10


def test_a_first_step_at_no_time_is_not_counted() -> None:
    metrics = Metrics()
    before = make_bound_job(execution={"state": "Running"})
    count_first_step(metrics, before, make_bound_job(execution={"state": "Running", "firstStepAt": "soon"}))
    assert samples(metrics)["cyxwiz_start_seconds_count", ()] == 0
