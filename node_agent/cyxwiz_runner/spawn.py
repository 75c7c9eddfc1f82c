"""Starts trainers, each in a session and an environment of its own, and knows every process that came of them."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from . import priority
from .confinement import Confinement
from .orphans import Living
from .process_tree import MARKER, find_process
from .quarters import Quarters
from .trainer import SpawnPlan, Trainer
from .uids import Uids

VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"
DEFAULT_COMMAND = (sys.executable, "-s", "-P", "-m", "cyxwiz_trainer")  # -s -P: nothing from its home or its folder


class Spawner:
    """The only place that makes processes."""

    def __init__(
        self,
        instance: str,
        folder: Path,
        command: Sequence[str],
        data_root: Path | None,
        living: Living,
        uids: Uids | None = None,
    ) -> None:
        self._instance = instance
        self._folder = folder
        self._command = list(command)
        self._data_root = data_root
        self._living = living
        self._uids = uids
        self._numbers = itertools.count(1)
        self._shared: dict[str, str] = {}
        if uids is None:  # what was compiled is pickled: whoever can write it runs code in whoever reads it
            compiled = folder.parent / "compiled"
            compiled.mkdir(mode=0o700, exist_ok=True)
            self._shared = {"CYXWIZ_COMPILED": str(compiled)}

    def spawn(self, plan: SpawnPlan) -> Trainer:
        """A trainer that has begun to get ready. Raises OSError when no process can be made."""
        spawn_id = str(next(self._numbers))
        marker = f"{self._instance}/{spawn_id}"
        quarters = Quarters(self._folder / f"{self._instance}-{spawn_id}", self._uids)
        ours, its = socket.socketpair()
        try:
            with its, quarters.output.open("wb") as output:
                popen = subprocess.Popen(
                    [*self._command, "--socket-fd", str(its.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=quarters.home,
                    env=environment(plan, quarters.home, marker, self._data_root) | self._shared,
                    pass_fds=(its.fileno(),),
                    start_new_session=True,  # a stopped process group dies with the terminal of its session
                    umask=quarters.umask,
                    preexec_fn=Confinement(quarters.uid),  # safe: this process has one thread
                )
        except OSError:
            ours.close()
            quarters.abandon()
            raise
        root = find_process(popen.pid)
        assert root is not None, "a child that has not been reaped has an entry in /proc"
        if plan.nice:
            priority.set_nice(popen.pid, plan.nice)
        return Trainer(plan, popen, root, marker, quarters, ours, self._living)


def environment(plan: SpawnPlan, home: Path, marker: str, data_root: Path | None) -> dict[str, str]:
    """Everything a trainer's environment holds, built from nothing."""
    variables = {
        MARKER: marker,
        VISIBLE_DEVICES: ",".join(plan.gpus),
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # deterministic matrix products; read when CUDA starts
        "GOMP_SPINCOUNT": "1000",  # threads that wait for each other soon sleep: other processes have the cores, too
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "LOGNAME": "trainer",  # torch asks getpass, which fails for a uid without a passwd entry
        "OMP_NUM_THREADS": str(plan.cpus),
        "PATH": os.environ.get("PATH", os.defpath),
        "PYTHONHASHSEED": "0",
        "TMPDIR": str(home),  # goes with the trainer
        "TORCHINDUCTOR_CACHE_DIR": str(home / "inductor"),  # holds pickles: never shared
        "USER": "trainer",
    }
    if data_root is not None:
        variables["CYXWIZ_DATA_ROOT"] = str(data_root)
    if library_path := os.environ.get("LD_LIBRARY_PATH"):  # where container runtimes mount the GPU driver
        variables["LD_LIBRARY_PATH"] = library_path
    return variables
