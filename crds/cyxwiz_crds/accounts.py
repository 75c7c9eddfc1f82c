"""What a job's run can be held to: what made it, and what became of its time."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .base import Count, Line, Model, Word

Digest = Annotated[str, Field(max_length=80)]
"""sha256:<64 hexadecimal digits>"""


class Receipt(Model):
    """What this attempt was made with: enough to do it again, and to know whether it was the same."""

    seed: Count = 0
    """Seed of weights, shuffling and augmentation."""
    cyxwiz: Word | None = None
    """Version of the trainer."""
    python: Word | None = None
    """Version of Python."""
    torch: Word | None = None
    """Version of torch."""
    cuda: Word | None = None
    """Version of CUDA that torch was built with; absent on the CPU."""
    driver: Word | None = None
    """Version of the GPU driver; absent on the CPU."""
    gpus: Annotated[list[Line], Field(max_length=16)] = []
    """Name and UUID of each GPU."""
    code: Digest | None = None
    """Digest of the source of the trainer, and of the package that the model or the data set comes from."""
    data: Digest | None = None
    """Digest of the decoded samples and labels."""
    model: Digest | None = None
    """Digest of the exported weights; absent until there are some."""


class Goodput(Model):
    """What became of the job's time, over all attempts that are over. Written by the operator, when one ends."""

    useful_seconds: Count = 0
    """Training that counts: from an attempt's first step to its end, or to the checkpoint the next one went on from."""
    lost_seconds: Count = 0
    """Training that had to be done again, or came to nothing."""
    waiting_seconds: Count = 0
    """Everything else since the job was made: queueing, starting, frozen, and between attempts. Being suspended is not
    counted."""
