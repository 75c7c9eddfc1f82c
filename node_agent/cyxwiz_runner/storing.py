"""A trained model is put where output.uri says: asked for before the job has a GPU, and done after its trainer ended.

The files are opened here, as what lies in the job's own folder and nothing else, and inherited by the process that
stores them: it has the node's credentials, and no way to a job's folder.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time

from cyxwiz_crds import Failure
from cyxwiz_protocol.job_folder import JobFolder, open_inside
from cyxwiz_protocol.location import BadLocation, Location
from cyxwiz_protocol.order import JobOrder
from cyxwiz_protocol.storing import MOST_FILES, Offered, StoreOrder, StoreOutcome, Target, output_location

from .fetching import NotFetched
from .store_processes import NoAnswer, StoreProcesses, Unconfigured

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_log = logging.getLogger(__name__)


class Storage:
    """Has the models of jobs stored."""

    def __init__(self, processes: StoreProcesses) -> None:
        self._processes = processes

    async def check(self, folder: JobFolder) -> None:
        """The job's model could be stored now, as far as its place can tell; nothing where it stays on the node.

        Raises NotFetched, OSError.
        """
        order = _order(folder)
        if order is None or order.spec.output.uri is None:
            return
        try:
            request = self._request(order, order.spec.output.uri)
        except (BadLocation, NoVolume) as error:
            raise NotFetched(Failure.USER_ERROR, str(error)) from error
        except Unconfigured as error:
            raise NotFetched(Failure.NOT_STORED, str(error)) from error
        outcome = await self._ask(request, ())
        if outcome.message is not None:
            failure = Failure.USER_ERROR if outcome.for_good else Failure.NOT_STORED
            raise NotFetched(failure, f"output.uri: {outcome.message}")

    def wanted(self, folder: JobFolder) -> bool:
        """Whether the job's model is to be stored."""
        order = _order(folder)
        return order is not None and order.spec.output.uri is not None

    async def store(self, folder: JobFolder) -> StoreOutcome:
        """What came of it. The folder must be the runner's again."""
        order = _order(folder)
        assert order is not None
        uri = order.spec.output.uri or ""
        began = time.monotonic()
        with contextlib.ExitStack() as opened:
            try:
                files = _files(folder, opened)
                request = self._request(order, uri)
            except (BadLocation, NoVolume, Unconfigured, OSError) as error:
                return StoreOutcome(uri=uri, message=str(error))
            outcome = await self._ask(request.model_copy(update={"files": files}), [file.descriptor for file in files])
        _log.info(
            "model stored assignment=%s files=%d of %d bytes=%d seconds=%.1f message=%s",
            *(folder.assignment_id, len(outcome.files), len(files), sum(file.bytes for file in outcome.files)),
            *(time.monotonic() - began, outcome.message),
        )
        return outcome

    def _request(self, order: JobOrder, uri: str) -> StoreOrder:
        """Raises BadLocation, NoVolume, Unconfigured."""
        location = output_location(uri, order.namespace, order.name)
        if location.scheme != "volume":
            target = Target(uri=_text(location))
            return StoreOrder(namespace=order.namespace, target=target, remote=self._processes.configuration())
        if order.output_volume is None:
            raise NoVolume(
                f"output.uri {location}: this node has no volume {location.authority} that jobs of namespace "
                f"{order.namespace} may write to"
            )
        return StoreOrder(namespace=order.namespace, target=Target(uri=_text(location), volume=order.output_volume))

    async def _ask(self, order: StoreOrder, descriptors: list[int] | tuple[int, ...]) -> StoreOutcome:
        """A volume is the runner's to write to, and needs no network; a store is the other user's, with credentials."""
        uri = order.target.uri
        try:
            is_volume = order.target.volume is not None
            async with self._processes.answering(order, descriptors, as_runner=is_volume) as line:
                return StoreOutcome.model_validate_json(line)
        except NoAnswer:
            return StoreOutcome(uri=uri, message=f"{uri}: the process that stores it ended without an answer")
        except OSError as error:  # no process could be started
            return StoreOutcome(uri=uri, message=f"{uri}: {error}")


class NoVolume(Exception):
    """The job may not write to the volume it names, or there is none."""


def _order(folder: JobFolder) -> JobOrder | None:
    """None for one that is none: its trainer has said so."""
    try:
        return JobOrder.model_validate_json(folder.order.read_bytes())
    except (OSError, ValueError):
        return None


def _text(location: Location) -> str:
    return f"{location.scheme}://{location.authority}/{location.path.rstrip('/')}"


def _files(folder: JobFolder, opened: contextlib.ExitStack) -> list[Offered]:
    """The model's files, open. Raises OSError for a folder that holds anything else."""
    names = sorted(path.name for path in folder.model.iterdir())
    if not 0 < len(names) <= MOST_FILES:
        raise OSError(f"{folder.model.name}/ holds {len(names)} files: 1 to {MOST_FILES} are stored")
    files: list[Offered] = []
    for name in names:
        if not _NAME.fullmatch(name):
            raise OSError(f"{folder.model.name}/ holds a file with an odd name: {name[:80]!r}")
        descriptor = open_inside(folder.path, f"{folder.model.name}/{name}")
        opened.callback(os.close, descriptor)
        files.append(Offered(name=name, descriptor=descriptor, bytes=os.fstat(descriptor).st_size))
    return files
