"""Named folders of a node behind volume://name/path: the file that agent and runner are told with `--volumes`.

    {"volumes": [{"name": "imagenet", "path": "/mnt/imagenet", "readOnly": true, "namespaces": ["team-a"]}]}

The agent checks the namespace and writes the folder into the order; a job that may not use a volume never learns where
it lies.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, field_validator

from cyxwiz_crds import Model


class Volume(Model):
    """One folder."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
    path: str
    """As the runner sees it, absolute."""
    read_only: bool = True
    """Nothing is written there for a job."""
    namespaces: list[str] = []
    """Whose jobs may use it. Empty: everybody's."""

    @field_validator("path")
    @classmethod
    def _is_absolute(cls, path: str) -> str:
        if not Path(path).is_absolute():
            raise ValueError("must be absolute")
        return path

    def is_open_to(self, namespace: str) -> bool:
        return not self.namespaces or namespace in self.namespaces


class Volumes(Model):
    """All of a node."""

    model_config = ConfigDict(extra="forbid")

    volumes: list[Volume] = []

    @field_validator("volumes")
    @classmethod
    def _are_different(cls, volumes: list[Volume]) -> list[Volume]:
        if len({volume.name for volume in volumes}) < len(volumes):
            raise ValueError("two volumes have the same name")
        return volumes

    def named(self, name: str) -> Volume | None:
        return next((volume for volume in self.volumes if volume.name == name), None)


def read_volumes(path: Path | None) -> Volumes:
    """The volumes of the file; none without a file. Raises OSError, ValueError."""
    return Volumes() if path is None else Volumes.model_validate_json(path.read_bytes())
