"""The files that a job needs from the network are on this machine before it is given a trainer or a GPU.

They are fetched by a process of their own (`store_processes`) into the cache of the node. A job gets a hard link to
each file in its own folder, so that it reaches its files and no others, and the cache knows what is in use.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from pathlib import Path

from cyxwiz_crds import Failure
from cyxwiz_protocol.fetching import (
    INDEX,
    FetchAnswer,
    Fetched,
    FetchOrder,
    Inputs,
    remote_uris,
)
from cyxwiz_protocol.job_folder import JobFolder, write_json
from cyxwiz_protocol.location import BadLocation
from cyxwiz_protocol.order import JobOrder
from cyxwiz_protocol.records import FailureRecord, encode_record

from .job_files import open_to_append
from .store_processes import NoAnswer, StoreProcesses, Unconfigured
from .trainer import StartFailed

_log = logging.getLogger(__name__)


class NotFetched(StartFailed):
    """A file of the job could not be had; its text is for the job's author."""

    def __init__(self, failure: str, message: str) -> None:
        super().__init__(message)
        self.failure = failure


class Fetcher:
    """Has the files of jobs brought into the node's cache."""

    def __init__(self, cache: Path, processes: StoreProcesses, uid: int | None = None) -> None:
        """`uid` is the processes', which own the cache. Raises OSError."""
        self._cache = cache
        self._processes = processes
        cache.mkdir(mode=0o700, exist_ok=True)
        if uid is not None and cache.stat().st_uid != uid:
            for path in (cache, *cache.rglob("*")):
                os.chown(path, uid, uid, follow_symlinks=False)

    async def fetch(self, folder: JobFolder) -> bool:
        """Everything that the order of `folder` names is in its inputs; False where it names nothing remote.

        Raises NotFetched, StartFailed, OSError.
        """
        try:
            order = JobOrder.model_validate_json(folder.order.read_bytes())
        except ValueError:  # the trainer will say what is wrong with its order
            return False
        try:
            uris = remote_uris(order.spec)
        except BadLocation as error:  # known before a trainer is taken for it
            raise NotFetched(Failure.USER_ERROR, str(error)) from error
        if not uris:
            return False
        began = time.monotonic()
        try:
            remote = self._processes.configuration()
        except Unconfigured as error:
            raise NotFetched(Failure.CRASHED, str(error)) from error
        request = FetchOrder(namespace=order.namespace, uris=uris, cache=str(self._cache), remote=remote)
        fetched = await self._run(request, folder)
        transferred = sum(file.bytes for file in fetched if not file.cached)
        _log.info(
            "inputs fetched assignment=%s files=%d bytes=%d seconds=%.1f",
            *(folder.assignment_id, len(fetched), transferred, time.monotonic() - began),
        )
        return True

    async def _run(self, order: FetchOrder, folder: JobFolder) -> list[Fetched]:
        try:
            async with self._processes.answering(order) as line:
                answer = FetchAnswer.model_validate_json(line)
                if answer.failure is not None:
                    raise NotFetched(answer.failure, answer.message or "a file could not be fetched")
                _link(answer.fetched, folder)  # while the process holds them in the cache
        except NoAnswer as error:
            raise StartFailed("the process that fetches its data ended without an answer") from error
        return answer.fetched


def tell(folder: JobFolder, failure: NotFetched) -> None:
    """The job's records end with why it has no data. Raises OSError."""
    record = FailureRecord(t=time.time(), failure=failure.failure, message=str(failure)[:1000])
    with os.fdopen(open_to_append(folder.metrics), "ab") as file:
        file.write(encode_record(record))


def drop_inputs(folder: JobFolder) -> None:
    """The job's links are gone, so that its files may leave the cache. The index stays as a record."""
    with contextlib.suppress(OSError):
        for path in folder.inputs.iterdir():
            if path.name != INDEX:
                path.unlink()


def _link(fetched: list[Fetched], folder: JobFolder) -> None:
    """The job's inputs are these files, and its to read alone: nobody else gets through its folder."""
    shutil.rmtree(folder.inputs, ignore_errors=True)
    folder.inputs.mkdir()
    folder.inputs.chmod(0o755)
    here: list[Fetched] = []
    for number, file in enumerate(fetched):
        os.link(file.path, folder.inputs / str(number))
        here.append(file.model_copy(update={"path": str(number)}))
    index = folder.inputs / INDEX
    write_json(index, Inputs(fetched=here).wire())
    index.chmod(0o644)
