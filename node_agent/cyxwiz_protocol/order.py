"""What an agent asks of a trainer: the content of job.json."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cyxwiz_crds import Model, TrainingJobSpec


class JobOrder(Model):
    """One attempt of one job, complete: a trainer reads nothing else but data."""

    assignment_id: str
    """Names the attempt and its folder."""
    namespace: str
    name: str
    attempt: int
    spec: TrainingJobSpec
    gpus: list[str] = []
    """UUIDs of the GPUs to train on; empty means the CPU."""
    ranks: Annotated[int, Field(ge=1)] = 1
    """Processes to train in, each with an equal part of every batch: one per GPU. Without GPUs they share the CPU."""
    volumes: dict[str, str] = {}
    """Folders of the volumes that the job names and may use, by name."""
    output_volume: str | None = None
    """Folder of the volume that output.uri names, where the job's namespace may write to it."""
    restore_from: str | None = None
    """Folder of the checkpoint to go on from, on this machine."""
    init_from: str | None = None
    """File of the weights to start from, in the job's own folder or wherever the trainer may read."""
