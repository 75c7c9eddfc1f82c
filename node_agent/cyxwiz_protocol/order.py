"""What an agent asks of a trainer: the content of job.json."""

from __future__ import annotations

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
    restore_from: str | None = None
    """Folder of the checkpoint to go on from, on this machine."""
