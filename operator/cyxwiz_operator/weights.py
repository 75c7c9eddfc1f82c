"""Where the weights lie that jobs start from (`model.initFrom.job`), as far as is known. Pure: `sources` looks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cyxwiz_crds import FINAL_PHASES, Phase, TrainingJob

from .views import JobView

_ON_A_NODE = "node://"

Key = tuple[str, str]
"""Namespace and name of the job that is started from."""


@dataclass(frozen=True)
class Ready:
    """There are weights."""

    uri: str
    sha256: str

    @property
    def node(self) -> str | None:
        """The only node that has them; None when every node can read them."""
        if not self.uri.startswith(_ON_A_NODE):
            return None
        return self.uri.removeprefix(_ON_A_NODE).partition("/")[0]


@dataclass(frozen=True)
class Missing:
    """There are none, and why, in a sentence."""

    message: str
    for_good: bool = False
    """No waiting will help."""
    absent: bool = False
    """There is no such job yet."""


Source = Ready | Missing


def wanted_by(job: JobView) -> Key | None:
    """The job whose weights `job` starts from; None when it needs no other."""
    init_from = job.job.spec.model.init_from
    if init_from is None or init_from.job is None:
        return None
    return job.job.metadata.namespace, init_from.job


def source_in(base: TrainingJob | None, name: str) -> Source:
    """What the job called `name` has to offer; None when there is no such job."""
    if base is None:
        message = f"Waits for job {name} to start from: there is none of that name in this namespace yet."
        return Missing(message, absent=True)
    status = base.status
    if status.phase not in FINAL_PHASES:
        return Missing(f"Starts from the weights of job {name}, which is {status.phase}.")
    model = status.execution.model if status.execution else None
    if status.phase == Phase.SUCCEEDED and model is not None:
        return Ready(model.node_uri or model.uri, model.sha256)
    why = "trained none" if status.phase == Phase.SUCCEEDED else f"ended as {status.phase}"
    message = f"model.initFrom: job {name} has no weights, it {why}. Name another job, or run it again first."
    return Missing(message, for_good=True)


def source_for(job: JobView, sources: Mapping[Key, Source]) -> Source | None:
    """Where the weights of `job` come from; None when it needs those of no other job."""
    key = wanted_by(job)
    return None if key is None else sources.get(key, Missing(f"Looks for the weights of job {key[1]}."))
