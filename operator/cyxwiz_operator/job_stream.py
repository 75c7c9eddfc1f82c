"""The seam through which jobs arrive: a stream of parsed views.

A list-and-watch of our own feeds it, because kopf's handling of one event costs four times as much CPU. Finished jobs
leave the watch by its field selector, so the operator's memory grows with the work at hand only.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import orjson
import pydantic

from cyxwiz_crds import FINAL_PHASES, Phase, TrainingJob, TrainingJobSpec, TrainingJobStatus
from cyxwiz_kube import ChangeKind, Kube, paths

from .measuring import count_first_step
from .metrics import Metrics
from .views import JobView, Unreadable
from .watched import Watched

log = logging.getLogger(__name__)

_SPECS: WeakValueDictionary[bytes, TrainingJobSpec] = WeakValueDictionary()
"""JSON to model: thousands of jobs that ask for the same keep and read it once."""
_NO_STATUS = TrainingJobStatus()
_UNSEEN = {"phase": Phase.PENDING}
_UNSEEN_STATUS = TrainingJobStatus(phase=Phase.PENDING)
"""Of every job that nobody has written to: one for all of a long queue."""

UNFINISHED = ",".join(f"status.phase!={phase}" for phase in sorted(FINAL_PHASES))


class Gone(NamedTuple):
    """The job was deleted or has reached its final phase."""

    uid: str


class Synced(NamedTuple):
    """Every job of a list has been told."""


Known = Callable[[str, str], JobView | None]
"""uid and resource version to the job, where it was read before."""


async def job_stream(kube: Kube, known: Known) -> AsyncIterator[JobView | Unreadable | Gone | Synced]:
    """Every unfinished job, then every change of one, without end."""
    async for change in kube.watch(paths.training_jobs(), field_selector=UNFINISHED):
        match change.kind:
            case ChangeKind.PRESENT:
                metadata = change.object["metadata"]
                yield known(metadata["uid"], metadata["resourceVersion"]) or parse_job(change.object)
            case ChangeKind.GONE:
                yield Gone(change.object["metadata"]["uid"])
            case ChangeKind.SYNCED:
                yield Synced()


async def follow_jobs(kube: Kube, watched: Watched, metrics: Metrics) -> None:
    """`watched` holds the unfinished jobs from now on. Never returns."""
    async for seen in job_stream(kube, watched.as_written):
        match seen:
            case JobView():
                count_first_step(metrics, watched.jobs.get(seen.uid), seen)
                watched.put_job(seen)
            case Unreadable():
                watched.put_unreadable(seen)
            case Gone(uid):
                watched.drop_job(uid)
            case Synced():
                watched.jobs_synced.set()
                watched.bell.set()


def parse_job(item: dict[str, Any]) -> JobView | Unreadable:
    """The job as a model; what cannot be read becomes a value that says why."""
    try:
        spec, status = _spec_of(item["spec"]), item.get("status") or _NO_STATUS
        status = _UNSEEN_STATUS if status == _UNSEEN else status
        return JobView(TrainingJob.model_validate({"metadata": item["metadata"], "spec": spec, "status": status}))
    except pydantic.ValidationError as error:
        metadata = item["metadata"]
        return Unreadable(
            namespace=metadata["namespace"],
            name=metadata["name"],
            uid=metadata["uid"],
            resource_version=metadata["resourceVersion"],
            status=item.get("status") or {},
            problem=in_words(error),
        )


def _spec_of(spec: dict[str, Any]) -> TrainingJobSpec | dict[str, Any]:
    """The specification as a model; as it came when it cannot be read."""
    key = orjson.dumps(spec)
    model = _SPECS.get(key)
    if model is None:
        try:
            model = _SPECS[key] = TrainingJobSpec.model_validate(spec)
        except pydantic.ValidationError:
            return spec  # whoever reads the whole job names the field by its whole path
    return model


def in_words(error: pydantic.ValidationError) -> str:
    """spec.epochs: Input should be a valid integer (got 'many')"""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    more = error.error_count() - 1
    return f"{where}: {first['msg']} (got {first['input']!r:.64})" + (f", and {more} more" if more else "")
