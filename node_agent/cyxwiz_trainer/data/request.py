"""What a reader of data is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cyxwiz_crds import TrainingJobSpec, size_text
from cyxwiz_trainer.failures import UserError


@dataclass(frozen=True)
class Request:
    """One data set, as its job describes it."""

    name: str
    """What follows :// in dataset.uri."""
    root: Path | None
    """The node's data folder, where it has one."""
    fraction: float
    """Share to hold out where the data has no part for that."""
    seed: int
    limit_bytes: int
    """Host memory the data must fit in."""
    task: str = "auto"
    label_column: str | None = None
    context_length: int = 128

    @classmethod
    def of(cls, spec: TrainingJobSpec, name: str, root: Path | None) -> Request:
        """The request of a job."""
        return cls(
            name,
            root,
            spec.dataset.validation.fraction,
            spec.hyperparameters.seed,
            spec.resources.memory_bytes,
            spec.task,
            spec.dataset.label_column,
            spec.dataset.context_length,
        )

    def check_size(self, file: str, needed_bytes: int) -> None:
        """Raises UserError when the content of `file` would not fit into the job's memory."""
        if needed_bytes > self.limit_bytes:
            raise UserError(
                f"the content of {file} takes {size_text(needed_bytes)}, more than resources.memory "
                f"{size_text(self.limit_bytes)}"
            )
