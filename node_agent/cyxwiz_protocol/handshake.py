"""What a runner and its trainer say before a job begins: three lines on an inherited socket, then never again.

    trainer   {"ready": {"pid": 71, "torchVersion": "2.15.0", "models": ["cnn"], "device": "cpu"}}
    runner    {"start": {"folder": "/var/lib/cyxwiz/jobs/<assignment id>"}}
    trainer   {"started": true}

A trainer whose socket closes before the start line leaves with exit code 0.
"""

from __future__ import annotations

import json

from pydantic import ValidationError

from cyxwiz_crds import Model

STARTED_LINE = b'{"started":true}\n'
LONGEST_LINE_BYTES = 65_536


class Ready(Model):
    """The trainer can begin at once."""

    pid: int
    torch_version: str
    models: list[str]
    """Names of its registry, sorted."""
    device: str
    """cpu, or the GPU's name."""
    free_memory: int | None = None
    """Free device memory in bytes; None on the CPU."""


class Start(Model):
    """Begin this job."""

    folder: str
    """Absolute path of the job's folder."""


class _ReadyLine(Model):
    ready: Ready


class _StartLine(Model):
    start: Start


def encode_ready(ready: Ready) -> bytes:
    """One line, newline included."""
    return _line(_ReadyLine(ready=ready))


def encode_start(start: Start) -> bytes:
    """One line, newline included."""
    return _line(_StartLine(start=start))


def parse_ready(line: bytes) -> Ready | None:
    """What the trainer said; None for a line that is something else."""
    try:
        return _ReadyLine.model_validate_json(line).ready
    except ValidationError:
        return None


def parse_start(line: bytes) -> Start | None:
    """What the runner said; None for a line that is something else."""
    try:
        return _StartLine.model_validate_json(line).start
    except ValidationError:
        return None


def _line(message: Model) -> bytes:
    return json.dumps(message.wire(), allow_nan=False).encode() + b"\n"
