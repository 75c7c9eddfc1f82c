"""What a reader of data is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from cyxwiz_crds import TrainingJobSpec, size_text
from cyxwiz_protocol.fetching import Fetched
from cyxwiz_protocol.location import BadLocation, Location, parse_location
from cyxwiz_trainer.failures import UserError

from .columns import Columns

NOTHING = 0.0
EVERYTHING = 1.0
"""As dataset.validation.fraction: an Evaluation answers what a job would train on as well."""


@dataclass(frozen=True)
class Request:
    """One data set, as its job describes it."""

    name: str
    """What follows :// in dataset.uri."""
    root: Path | None
    """The node's data folder, where it has one."""
    fraction: float
    """Share to hold out where the data has no part for that; NOTHING where those samples lie elsewhere, or where
    all of them are answered."""
    seed: int
    limit_bytes: int
    """Host memory the data must fit in."""
    task: str = "auto"
    label_column: str | None = None
    context_length: int = 128
    uri: str = ""
    location: Location = field(default_factory=lambda: Location("", "", ""))
    """What the uri names, parsed."""
    volumes: Mapping[str, Path] = field(default_factory=dict[str, Path])
    """Folders of the volumes that the job may use, by name."""
    inputs: Mapping[str, Fetched] = field(default_factory=dict[str, Fetched])
    """What was fetched for the job, by uri."""
    columns: Columns | None = None
    """What a table's columns must become: those of the weights, or of the data these samples are held out from."""

    @classmethod
    def of(
        cls,
        spec: TrainingJobSpec,
        root: Path | None,
        volumes: Mapping[str, Path] | None = None,
        inputs: Mapping[str, Fetched] | None = None,
        columns: Columns | None = None,
    ) -> Request:
        """The request of a job. Raises UserError for a uri that is none."""
        uri = spec.dataset.uri
        location = _located(uri, "dataset.uri")
        asked = spec.dataset.validation
        return cls(
            uri.partition("://")[2],
            root,
            NOTHING if asked.uri is not None or asked.fraction == EVERYTHING else asked.fraction,
            spec.hyperparameters.seed,
            spec.resources.memory_bytes,
            spec.task,
            spec.dataset.label_column,
            spec.dataset.context_length,
            uri,
            location,
            volumes or {},
            inputs or {},
            columns,
        )

    def held_out(self, uri: str, task: str, held_bytes: int, columns: Columns | None) -> Request:
        """The request for samples at `uri` that belong to this one's. Raises UserError for a uri that is none."""
        location = _located(uri, "dataset.validation.uri")
        return replace(
            self,
            name=uri.partition("://")[2],
            uri=uri,
            location=location,
            task=task,
            limit_bytes=max(self.limit_bytes - held_bytes, 0),
            columns=columns,
        )

    def check_size(self, file: str, needed_bytes: int) -> None:
        """Raises UserError when the content of `file` would not fit into the job's memory."""
        if needed_bytes > self.limit_bytes:
            raise UserError(
                f"the content of {file} takes {size_text(needed_bytes)}, more than resources.memory "
                f"{size_text(self.limit_bytes)}"
            )


def _located(uri: str, field: str) -> Location:
    try:
        return parse_location(uri, field)
    except BadLocation as error:
        raise UserError(str(error)) from error
