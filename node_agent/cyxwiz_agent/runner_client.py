"""The agent's end of the runner's socket."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from cyxwiz_crds import Model
from cyxwiz_protocol.runner_api import (
    LONGEST_LINE_BYTES,
    Answer,
    ForgetRequest,
    JobProcess,
    ListRequest,
    RenewRequest,
    RunRequest,
    Snapshot,
    StopRequest,
    WarmRequest,
    WatchRequest,
    socket_path,
)

log = logging.getLogger(__name__)

ANSWER_WITHIN_S = 5.0
RETRY_S = 0.5
LOST_AFTER_S = 30.0
"""Longer than a container takes to be started again."""


class RunnerUnavailable(Exception):
    """Nobody answers on the runner's socket."""


class RunnerClient:
    """Requests to the runner, and the newest Snapshot it has told. One connection per request: they are local, few,
    and a request can never be answered with the answer of another."""

    def __init__(self, state: Path, changed: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._socket = socket_path(state)
        self._changed = changed
        self._clock = clock
        self._silent_since: float | None = None
        self.snapshot: Snapshot | None = None
        """None while the runner does not answer."""

    async def is_lost(self) -> bool:
        """True when nobody has answered for LOST_AFTER_S, and not to this call either."""
        if self._silent_since is None:
            return False
        try:
            await self.look()
        except (RunnerUnavailable, ValidationError):
            return self._clock() - self._silent_since > LOST_AFTER_S
        return False

    async def watch(self) -> None:
        """Follow the runner's snapshots, over restarts of it; until cancelled."""
        while True:
            try:
                reader, writer = await self._connect()
                try:
                    writer.write(_line(WatchRequest()))
                    while line := await reader.readline():
                        self._see(Snapshot.model_validate_json(line))
                finally:
                    writer.close()
            except (RunnerUnavailable, OSError, ValidationError, ValueError) as error:
                log.debug("runner: %s", error)
            if self.snapshot is not None:
                log.warning("the runner does not answer any more")
                self.snapshot = None
                self._changed()
            await asyncio.sleep(RETRY_S)

    def job(self, assignment_id: str) -> JobProcess | None:
        """The attempt as the runner last told it."""
        jobs = self.snapshot.jobs if self.snapshot else []
        return next((job for job in jobs if job.assignment_id == assignment_id), None)

    async def run(self, request: RunRequest) -> Answer:
        """The attempt is starting, or the answer says why not. Afterwards the snapshot knows it."""
        answer = await self._ask(request)
        if answer.ok:
            await self.look()
        return answer

    async def stop(self, assignment_id: str, grace_s: float) -> Answer:
        return await self._ask(StopRequest(assignment_id=assignment_id, grace_seconds=grace_s))

    async def renew(self, deadlines: dict[str, float]) -> Answer:
        return await self._ask(RenewRequest(deadlines=deadlines))

    async def forget(self, assignment_id: str) -> Answer:
        return await self._ask(ForgetRequest(assignment_id=assignment_id))

    async def warm(self, gpus: list[str]) -> Answer:
        return await self._ask(WarmRequest(gpus=gpus))

    async def look(self) -> None:
        """The snapshot is as new as this call."""
        self._see(Snapshot.model_validate_json(await self._exchange(ListRequest())))

    def _see(self, snapshot: Snapshot) -> None:
        self._silent_since = None
        if self.snapshot is None:
            log.info("runner %s answers, %d jobs", snapshot.instance, len(snapshot.jobs))
        self.snapshot = snapshot
        self._changed()

    async def _ask(self, request: Model) -> Answer:
        return Answer.model_validate_json(await self._exchange(request))

    async def _exchange(self, request: Model) -> bytes:
        reader, writer = await self._connect()
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                writer.write(_line(request))
                line = await reader.readline()
        except (TimeoutError, OSError, ValueError) as error:
            raise self._unavailable(f"no answer on {self._socket}") from error
        finally:
            writer.close()
        if not line:
            raise self._unavailable(f"{self._socket} closed without an answer")
        return line

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            return await asyncio.open_unix_connection(str(self._socket), limit=LONGEST_LINE_BYTES)
        except OSError as error:
            raise self._unavailable(f"cannot connect to {self._socket}: {error}") from error

    def _unavailable(self, words: str) -> RunnerUnavailable:
        if self._silent_since is None:
            self._silent_since = self._clock()
        return RunnerUnavailable(words)


def _line(request: Model) -> bytes:
    return request.model_dump_json(by_alias=True, exclude_none=True).encode() + b"\n"
