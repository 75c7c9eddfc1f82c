"""What a runner and its trainer say before a job begins: six lines on an inherited socket, then never again.

    trainer   {"imported": true}
    runner    {"prepare": {"rehearse": true, "shapes": [...], "environment": {}}}
    trainer   {"ready": {"pid": 71, "torchVersion": "2.15.0", "models": ["cnn"], "device": "cpu"}}
    trainer   {"rehearsed": 3}
    runner    {"start": {"folder": "/var/lib/cyxwiz/jobs/<assignment id>"}}
    trainer   {"started": true}

A trainer that shall rehearse is ready after the first step and goes on with others. The start line may come meanwhile:
then the step in hand is its last, and the line about rehearsals need not come.

Until it is told to prepare, a trainer touches no device: one may wait, imported, while a job has the whole GPU.
A trainer whose socket closes before the start line leaves with exit code 0.
"""

from __future__ import annotations

import json

from pydantic import ValidationError

from cyxwiz_crds import Model

from .shape import Shape

IMPORTED_LINE = b'{"imported":true}\n'
STARTED_LINE = b'{"started":true}\n'
LONGEST_LINE_BYTES = 65_536


class Prepare(Model):
    """Take the device."""

    rehearse: bool = False
    """Dummy steps: for a trainer that is to wait for its job, not for one whose job waits."""
    shapes: list[Shape] = []
    """What jobs here have trained, newest first: rehearsed as far as time allows."""
    environment: dict[str, str] = {}
    """Variables that are read when the device is taken."""
    ranks: int = 1
    """Processes the job trains in. Several are forked below this one, which then stays off the devices itself."""


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


class _PrepareLine(Model):
    prepare: Prepare


class _ReadyLine(Model):
    ready: Ready


class _RehearsedLine(Model):
    rehearsed: int


class _StartLine(Model):
    start: Start


def encode_prepare(prepare: Prepare) -> bytes:
    """One line, newline included."""
    return _line(_PrepareLine(prepare=prepare))


def encode_ready(ready: Ready) -> bytes:
    """One line, newline included."""
    return _line(_ReadyLine(ready=ready))


def encode_rehearsed(count: int) -> bytes:
    """So many of the shapes it was told. One line, newline included."""
    return _line(_RehearsedLine(rehearsed=count))


def encode_start(start: Start) -> bytes:
    """One line, newline included."""
    return _line(_StartLine(start=start))


def parse_prepare(line: bytes) -> Prepare | None:
    """What the runner said; None for a line that is something else."""
    try:
        return _PrepareLine.model_validate_json(line).prepare
    except ValidationError:
        return None


def parse_ready(line: bytes) -> Ready | None:
    """What the trainer said; None for a line that is something else."""
    try:
        return _ReadyLine.model_validate_json(line).ready
    except ValidationError:
        return None


def parse_rehearsed(line: bytes) -> int | None:
    """What the trainer said; None for a line that is something else."""
    try:
        return _RehearsedLine.model_validate_json(line).rehearsed
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
