"""When this process may compute: the fence's last line, kept by the trainer itself, and the order to stop."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from cyxwiz_protocol.clock import boottime
from cyxwiz_protocol.job_folder import DeadlineReader, JobFolder

_NAP_S = 0.02


class Fenced(Exception):
    """Told to stop after the deadline: nothing more may be computed, and nothing is saved."""


class Stop:
    """Whether someone asked this process to leave."""

    def __init__(self) -> None:
        self.requested = False

    def listen(self) -> None:
        """SIGTERM is a request from now on: the step in hand is finished and the state saved."""
        signal.signal(signal.SIGTERM, lambda _number, _frame: self.request())

    def request(self) -> None:
        self.requested = True


class Fence:
    """Holds the loop while the deadline has passed, even when agent and runner are themselves stopped."""

    def __init__(
        self,
        deadline: Callable[[], float] | None,
        stop: Stop,
        clock: Callable[[], float] = boottime,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._deadline = deadline
        self._stop = stop
        self._clock = clock
        self._sleep = sleep

    @classmethod
    def of(cls, folder: JobFolder, stop: Stop) -> Fence:
        """The fence of `folder`; none when nobody wrote a deadline, as when a person runs the folder."""
        return cls(DeadlineReader(folder) if folder.deadline.exists() else None, stop)

    def wait(self) -> None:
        """This process may compute now. Raises Fenced when it is told to stop before it may."""
        # "Not before or at" instead of "after": a deadline that is no number holds, too.
        while self._deadline is not None and not self._clock() <= self._deadline():
            if self._stop.requested:
                raise Fenced
            self._sleep(_NAP_S)
