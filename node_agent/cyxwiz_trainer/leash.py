"""A process that works for a job beside it ends with the job's, and computes no longer than the job may."""

from __future__ import annotations

import os
import sys
import threading
import time

from cyxwiz_protocol.clock import boottime
from cyxwiz_protocol.job_folder import DeadlineReader, JobFolder

CANNOT = 3
"""Exit code of such a process that says why it cannot, in its last line."""
_NAP_S = 0.05


def leave_in_time(job: JobFolder | None) -> None:
    """This process ends once its parent is gone or the deadline in `job` has passed: nobody waits for what it does."""
    deadline = DeadlineReader(job) if job is not None and job.deadline.exists() else None
    threading.Thread(target=_watch, args=(os.getppid(), deadline), daemon=True).start()


def _watch(parent: int, deadline: DeadlineReader | None) -> None:
    while os.getppid() == parent:
        if deadline is not None and not boottime() <= deadline():
            print("OSError: the deadline passed while it worked", file=sys.stderr, flush=True)
            os._exit(1)
        time.sleep(_NAP_S)
    os._exit(1)
