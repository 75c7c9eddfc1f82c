"""Every kopf decorator: doors, no decisions.

kopf is the frame of the process and the watcher of ComputeNodes and Nodes: startup, cleanup, sign-in, signals.
TrainingJobs never pass through it (see `job_stream`), and nothing here makes it write to an object: no finalizers, no
annotations.
"""

from __future__ import annotations

from typing import Any

import kopf

from cyxwiz_crds import GROUP, VERSION

from .runtime import Runtime

REGISTRY = kopf.OperatorRegistry()


@kopf.on.startup(registry=REGISTRY)
async def start(settings: kopf.OperatorSettings, memo: kopf.Memo, **_: Any) -> None:
    """kopf is tamed, and the operator runs."""
    settings.networking.request_timeout = 15  # its 300 s would hide an outage
    settings.networking.connect_timeout = 5
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.process.ultimate_exiting_timeout = 20
    settings.posting.enabled = False  # it posts an Event for every line logged
    settings.scanning.disabled = True
    settings.peering.standalone = True
    _runtime(memo).start()


@kopf.on.cleanup(registry=REGISTRY)
async def stop(memo: kopf.Memo, **_: Any) -> None:
    """Nothing of the operator runs any more."""
    await _runtime(memo).stop()


@kopf.on.login(registry=REGISTRY)
def sign_in(memo: kopf.Memo, **_: Any) -> kopf.ConnectionInfo:
    """The same credentials as those of our own client; asked again when a token has expired.

    kopf's own way asks DNS for kubernetes.default.svc: without it the watches never begin, and nobody is told.
    """
    return kopf.ConnectionInfo(**_runtime(memo).sign_in())


@kopf.on.event(GROUP, VERSION, "computenodes", registry=REGISTRY)
async def node_event(event: kopf.RawEvent, name: str, memo: kopf.Memo, **_: Any) -> None:
    """A ComputeNode has changed, was listed, or is gone."""
    if event["type"] == "DELETED":
        _runtime(memo).node_gone(name)
    else:
        _runtime(memo).node_seen(dict(event["object"]))


@kopf.on.event("", "v1", "nodes", registry=REGISTRY)
async def machine_event(event: kopf.RawEvent, name: str, memo: kopf.Memo, **_: Any) -> None:
    """A Kubernetes Node has changed, was listed, or is gone."""
    if event["type"] == "DELETED":
        _runtime(memo).machine_gone(name)
    else:
        _runtime(memo).machine_seen(dict(event["object"]))


def _runtime(memo: kopf.Memo) -> Runtime:
    return memo["runtime"]
