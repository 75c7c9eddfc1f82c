"""The agent's side of one attempt's folder: the order goes in; records and last words come out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from cyxwiz_crds import Control, TrainingJob
from cyxwiz_crds.artifacts import InitialWeights
from cyxwiz_crds.training_job import RestoreFrom
from cyxwiz_protocol.job_folder import JobFolder, Tail, open_inside, open_regular, write_json
from cyxwiz_protocol.location import BadLocation, parse_location
from cyxwiz_protocol.order import JobOrder
from cyxwiz_protocol.records import Record, parse_record
from cyxwiz_protocol.storing import output_location
from cyxwiz_protocol.volumes import Volume, Volumes

from .ending import LOG_LINES_SHOWN

_LOG_BYTES_READ = 4096
_LONGEST_LOG_TAIL = 800
_COPIED_AT_ONCE = 1 << 22
_COUNTERS = TypeAdapter(dict[str, int])
_COUNTERS_BYTES_READ = 8192


class WeightsGone(Exception):
    """The weights a job starts from are not here any more; says so to the job's author."""


class AttemptFiles:
    """The folder of one assignment on this node. What a job can write there is not trusted further than its type."""

    def __init__(self, state: Path, node: str, assignment_id: str) -> None:
        self._state = state
        self._node = node
        self._folder = JobFolder.of(state, assignment_id)
        self._tail = Tail(self._folder.metrics)

    def new_records(self) -> Iterator[Record]:
        """What the trainer has told since the last call. Lines no trainer would write are passed over."""
        for line in self._tail.lines():
            record = parse_record(line)
            if record is not None:
                yield record

    def write_order(self, job: TrainingJob, *, simulated: bool, volumes: Volumes) -> None:
        """job.json says what the job's present assignment asks for. On `simulated` GPUs it trains on the CPU.

        Of `volumes` it learns the one that it names, where its namespace may use that.
        """
        assignment = job.status.assignment
        assert assignment is not None
        self._folder.path.mkdir(parents=True, exist_ok=True)
        spec, gpus = job.spec, assignment.gpus
        if gpus and simulated:
            # Nothing can compute on them: the job keeps them, and trains on the CPU.
            spec = spec.model_copy(update={"resources": spec.resources.model_copy(update={"gpus": 0})})
            gpus = []
        order = JobOrder(
            assignment_id=assignment.id,
            namespace=job.metadata.namespace,
            name=job.metadata.name,
            attempt=job.status.attempt or 1,
            spec=spec,
            gpus=gpus,
            ranks=max(1, len(assignment.gpus)),
            volumes=_usable(volumes, (spec.dataset.uri, spec.dataset.validation.uri), job.metadata.namespace),
            output_volume=_writable(volumes, job),
            restore_from=self._restore_folder(assignment.restore_from),
            init_from=str(self._folder.initial) if assignment.init_from else None,
        )
        write_json(self._folder.order, order.wire())

    def write_control(self, control: Control) -> None:
        """The trainer finds the order in its folder. Raises OSError, such as for a folder that the job has spoilt."""
        write_json(self._folder.control, control.wire(), for_all=True)

    def keep_counters(self, joules: Mapping[str, int]) -> None:
        """What its GPUs' energy counters stood at when it began outlives this agent. Raises OSError."""
        write_json(self._folder.counters, dict(joules))

    def kept_counters(self) -> dict[str, int] | None:
        """What `keep_counters` has kept; None when nothing is, or what a job has put there."""
        try:
            with os.fdopen(open_regular(self._folder.counters), "rb") as file:
                return _COUNTERS.validate_json(file.read(_COUNTERS_BYTES_READ))
        except (OSError, ValidationError):
            return None

    def bring_weights(self, weights: InitialWeights) -> None:
        """`weights` lie in the attempt's own folder, whole: their home may be another user's, or be deleted meanwhile.

        Blocks. Raises WeightsGone, and OSError when there is no room for them.
        """
        uri, name = weights.uri, weights.uri.rpartition("/")[2]
        prefix = f"node://{self._node}/"
        if not uri.startswith(prefix):
            raise WeightsGone(f"the weights to start from are at {uri[:200]}, which this node cannot read")
        try:
            source = open_inside(self._state / "jobs", uri.removeprefix(prefix))
        except OSError as error:
            raise WeightsGone(
                f"the weights to start from are not on {self._node} any more: run that job again"
            ) from error
        self._folder.path.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        temporary = self._folder.initial.with_suffix(".tmp")
        with os.fdopen(source, "rb") as content, temporary.open("wb") as copy:
            while part := content.read(_COPIED_AT_ONCE):
                digest.update(part)
                copy.write(part)
        if digest.hexdigest() != weights.sha256:
            temporary.unlink()
            raise WeightsGone(f"{name} on {self._node} has changed since that job ended: run that job again")
        temporary.replace(self._folder.initial)

    def _restore_folder(self, restore: RestoreFrom | None) -> str | None:
        """The checkpoint's folder on this machine; None when it lies elsewhere or is gone."""
        prefix = f"node://{self._node}/"
        if restore is None or not restore.uri.startswith(prefix):
            return None
        jobs = (self._state / "jobs").resolve()
        folder = (jobs / restore.uri.removeprefix(prefix)).resolve()
        return str(folder) if folder.is_relative_to(jobs) and folder.is_dir() else None

    def log_tail(self) -> str:
        """The last lines the job printed, as one line of bounded length."""
        try:
            with os.fdopen(open_regular(self._folder.log), "rb") as file:
                file.seek(max(0, file.seek(0, 2) - _LOG_BYTES_READ))
                lines = file.read().decode(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
        except OSError:
            return ""
        return " | ".join(line.strip() for line in lines if line.strip())[-_LONGEST_LOG_TAIL:]


def _usable(volumes: Volumes, uris: Iterable[str | None], namespace: str) -> dict[str, str]:
    """The folders of the volumes that `uris` name, but for those that are not theirs."""
    found = (_volume(volumes, uri) for uri in uris if uri is not None)
    return {volume.name: volume.path for volume in found if volume is not None and volume.is_open_to(namespace)}


def _volume(volumes: Volumes, uri: str) -> Volume | None:
    try:
        location = parse_location(uri)
    except BadLocation:  # the trainer says what is wrong with it
        return None
    return volumes.named(location.authority) if location.scheme == "volume" else None


def _writable(volumes: Volumes, job: TrainingJob) -> str | None:
    """The folder of the volume that output.uri names; None where it names none, or one that is not theirs to write."""
    uri, metadata = job.spec.output.uri, job.metadata
    if uri is None:
        return None
    try:
        location = output_location(uri, metadata.namespace, metadata.name)
    except BadLocation:  # the runner says what is wrong with it
        return None
    volume = volumes.named(location.authority) if location.scheme == "volume" else None
    if volume is None or volume.read_only or not volume.is_open_to(metadata.namespace):
        return None
    return volume.path
