"""A thread that asks the driver every 30 s and hears its errors meanwhile. A call that blocks, blocks nobody else."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from .health import APPLICATION_XIDS, xid_text
from .inventory import Devices
from .nvml import Driver
from .readings import Look, Xid

log = logging.getLogger(__name__)

LOOK_EVERY_S = 30.0
SILENT_AFTER_S = 3 * LOOK_EVERY_S
# A GPU that tells errors without end is listened to and looked at no more often.
ERRORS_APART_S = 0.1
LOOK_AGAIN_AFTER_S = 1.0
SILENT = f"its driver has not answered for {SILENT_AFTER_S:.0f} s"


class AsksTheDriver(Protocol):
    """What the thread needs of `nvml.Driver`."""

    def look(self) -> Look: ...

    def wait(self, timeout_s: float) -> Xid | None: ...


class DeviceMonitor:
    """The node's devices as last heard of."""

    def __init__(
        self,
        changed: Callable[[], None],
        driver: AsksTheDriver | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is asked before `run`. `changed` is called in the event loop, after each look and each error."""
        self._changed = changed
        self._driver = driver or Driver()
        self._clock = clock
        self._devices = Devices()
        self._asked_at = clock()
        self._first_look = asyncio.Event()
        self.xids: dict[tuple[str, int], int] = {}
        """How often each GPU has told each error, since the agent's start."""

    @property
    def devices(self) -> Devices:
        """As of the last look; unhealthy all of them when that is too long ago."""
        if self._clock() - self._asked_at > SILENT_AFTER_S:
            return self._devices.unanswered(SILENT)
        return self._devices

    async def first_look(self, within_s: float) -> bool:
        """True once the driver has been asked; False when it takes longer."""
        try:
            async with asyncio.timeout(within_s):
                return await self._first_look.wait()
        except TimeoutError:
            return False

    async def run(self) -> None:
        """Until cancelled. The thread is not waited for: it may hang in the driver."""
        stopped = threading.Event()
        loop = asyncio.get_running_loop()
        self._asked_at = self._clock()
        # A daemon, so that a hanging driver does not keep the process from ending.
        threading.Thread(target=self._ask, args=(loop, stopped), name="devices", daemon=True).start()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    def _ask(self, loop: asyncio.AbstractEventLoop, stopped: threading.Event) -> None:
        while not stopped.is_set():
            began = self._clock()
            try:
                look = self._driver.look()
                self._publish(loop, stopped, lambda look=look: self._see(look))
                while (left_s := began + LOOK_EVERY_S - self._clock()) > 0 and not stopped.is_set():
                    xid = self._driver.wait(left_s)
                    if xid is not None:
                        self._publish(loop, stopped, lambda xid=xid: self._hear(xid))
                    if xid is None or xid.number not in APPLICATION_XIDS:
                        break
                    stopped.wait(ERRORS_APART_S)
            except Exception:  # the outermost loop of its thread
                log.exception("the devices could not be read")
            stopped.wait(max(0.0, began + LOOK_AGAIN_AFTER_S - self._clock()))

    def _publish(self, loop: asyncio.AbstractEventLoop, stopped: threading.Event, act: Callable[[], None]) -> None:
        try:
            loop.call_soon_threadsafe(act)
        except RuntimeError:  # the event loop is closed: the agent has ended
            stopped.set()

    def _see(self, look: Look) -> None:
        before = self._devices
        self._asked_at = self._clock()
        self._devices = before.after(look, time.time())
        self._tell(before)
        self._first_look.set()
        self._changed()

    def _hear(self, xid: Xid) -> None:
        before = self._devices
        self.xids[xid.gpu, xid.number] = self.xids.get((xid.gpu, xid.number), 0) + 1
        self._devices = before.after_error(xid)
        if self.xids[xid.gpu, xid.number] == 1:
            log.warning("GPU %s tells %s", xid.gpu, xid_text(xid.number))
        self._tell(before)
        self._changed()

    def _tell(self, before: Devices) -> None:
        if self._devices.message != before.message:
            log.warning("devices: %s", self._devices.message or "all GPUs answer")
        known = {device.reading.uuid: device.health for device in before.known}
        for device in self._devices.known:
            health = device.health
            if health != known.get(device.reading.uuid):
                log.info(
                    "GPU %s is %s%s", device.reading.uuid, health.state, f": {health.reason}" * bool(health.reason)
                )
