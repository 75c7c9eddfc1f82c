"""What a runner and the process that fetches a job's files say to each other, and what the job finds of it.

runner    one line: a FetchOrder
process   one line: a FetchAnswer; the files stay in the cache until its input is closed
job       <folder>/inputs/index.json: Inputs, beside a link to each file
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from cyxwiz_crds import Model, TrainingJobSpec

from .location import parse_location

LONGEST_LINE_BYTES = 1_048_576
INDEX = "index.json"


class FetchOrder(Model):
    """Fetch these, for a job of this namespace."""

    verb: Literal["fetch"] = "fetch"
    namespace: str
    uris: list[str]
    cache: str
    """Folder of the node's cache."""
    remote: dict[str, Any] = {}
    """The administrator's configuration, credentials included (cyxwiz_store.config)."""


class Fetched(Model):
    """One file that was fetched."""

    uri: str
    path: str
    """Where it is on this machine; relative to the index in there."""
    name: str
    """As its uri calls it; the suffix tells how to read it."""
    sha256: str
    """Hexadecimal, of its bytes."""
    bytes: int
    version: str | None = None
    """What its server calls these very bytes."""
    cached: bool = False
    """Nothing was transferred."""
    is_folder: bool = False
    """The file is a tar of all that lay below the uri."""


class FetchAnswer(Model):
    """What came of it."""

    fetched: list[Fetched] = []
    failure: str | None = None
    """A class of cyxwiz_crds.Failure, when a file could not be had."""
    message: str | None = None


class Inputs(Model):
    """The content of index.json."""

    fetched: list[Fetched]


def remote_uris(spec: TrainingJobSpec) -> list[str]:
    """What a job needs from the network, each once. Raises BadLocation for any uri of the job that is none."""
    if (weights := spec.model.init_from) is not None and weights.uri is not None:
        parse_location(weights.uri, "model.initFrom.uri")
    locations = {spec.dataset.uri: parse_location(spec.dataset.uri)}
    if (held_out := spec.dataset.validation.uri) is not None:
        locations[held_out] = parse_location(held_out, "dataset.validation.uri")
    return [uri for uri, location in locations.items() if location.is_remote]


def read_inputs(folder: Path) -> dict[str, Fetched]:
    """What was fetched for the job, by uri, with whole paths. Raises OSError and ValueError where nothing was."""
    inputs = Inputs.model_validate_json((folder / INDEX).read_bytes())
    return {file.uri: file.model_copy(update={"path": str(folder / file.path)}) for file in inputs.fetched}
