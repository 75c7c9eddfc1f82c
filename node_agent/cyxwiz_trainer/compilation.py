"""Compiling one job's step beside its training, and what is known of that step on this machine.

Inductor's caches hold pickles: whoever can write one runs code in the trainer that reads it. So jobs share a folder
only where all trainers have one uid anyway. Where each has its own, every job compiles for itself, in its own folder.

    <folder>/<key>.cache    Inductor's cache, as precompile.py leaves it
    <folder>/<key>.json     how long it took and what it brought (compile_policy.Known)
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError

from cyxwiz_crds import TrainingJobSpec, size_text
from cyxwiz_protocol.job_folder import JobFolder, open_regular, write_json

from . import compiled_folder
from .blueprint import Blueprint
from .compile_policy import Decision, Known, decide
from .data import Dataset
from .device import Device
from .forward import Forward
from .models import Options

FOLDER_VARIABLE = "CYXWIZ_COMPILED"
"""Names the shared folder in a trainer's environment; without it nothing is shared."""
SPARE_HOST_BYTES = 8 * 2**30
SPARE_GPU_BYTES = 2 * 2**30
_LONGEST_WHY = 120
_ERROR = re.compile(r"[\w.]+(Error|Exception|Failed): ")
"""Begins the line of a traceback that says what happened; compilers add advice after it."""


@dataclass(frozen=True)
class Ready:
    """The cache is full: the step can be compiled in seconds."""

    compile_s: float | None
    """None when another job had done it."""


@dataclass(frozen=True)
class Failed:
    """It cannot be compiled."""

    why: str


class Compilation:
    """One step's way to its compiled form. Nothing here is waited for."""

    def __init__(
        self, blueprint: Blueprint, folder: Path, scratch: Path, *, job: JobFolder | None = None, always: bool = False
    ) -> None:
        """`scratch` is this job's alone. The compiler obeys the deadline in `job`; without one it has none.

        `always` compiles whatever it takes, for benchmarks and tests.
        """
        self._blueprint = blueprint
        self._cache = folder / f"{blueprint.key}{compiled_folder.CACHE}"
        self._record = folder / f"{blueprint.key}{compiled_folder.RECORD}"
        self._scratch = scratch
        self._job = job
        self._is_shared = folder != scratch
        self._always = always
        self._child: subprocess.Popen[bytes] | None = None
        self._begun = 0.0

    @classmethod
    def of(
        cls, spec: TrainingJobSpec, options: Options, data: Dataset, batch: int, device: Device, job: JobFolder
    ) -> Compilation | None:
        """That of a job whose step has `batch` samples at once; None for one that is never compiled.

        Not on the CPU; not where the job's own code must give the same bytes again, because the moment of the change
        is not the same again; not on a shared GPU, where a second process would take what is another job's.
        """
        if not device.is_gpu or spec.deterministic or spec.resources.gpu_memory is not None:
            return None
        folder = os.environ.get(FOLDER_VARIABLE)
        blueprint = Blueprint.of(spec, options, data, batch, device)
        scratch = job.path / "compiler"
        return cls(blueprint, Path(folder) if folder else scratch, scratch, job=job)

    def decide(self, step_s: float, steps_left: int) -> Decision:
        """Whether it pays, and why."""
        if self._always:
            return Decision(True, "compiling: it was asked for")
        cached = self._cache.is_file()
        decision = decide(step_s, steps_left, self._known(), cached=cached)
        if decision.compile and not cached and (why := _too_little_room()):
            return Decision(False, f"not compiled: {why}")
        return decision

    def begin(self) -> None:
        """A process compiles it, unless that was done before."""
        if self._cache.is_file():
            compiled_folder.used(self._cache)  # nobody removes it before it is read
            return
        self._scratch.mkdir(parents=True, exist_ok=True)
        self._cache.parent.mkdir(parents=True, exist_ok=True)
        drawing = self._scratch / "blueprint.json"
        write_json(drawing, self._blueprint.wire())
        self._begun = time.monotonic()
        command = [sys.executable, "-s", "-P", "-m", "cyxwiz_trainer.precompile", str(drawing), str(self._cache)]
        if self._job is not None:
            command.append(str(self._job.path))
        with self._log.open("wb") as log:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Of the caller's environment all but this: the job's processors are the compiler's, and no more.
                env=os.environ | {"TORCHINDUCTOR_COMPILE_THREADS": str(self._blueprint.threads)},
            )

    def poll(self) -> Ready | Failed | None:
        """What came of it; None while it goes on."""
        if self._child is None:
            return Ready(None)
        code = self._child.poll()
        if code is None:
            return None
        self._child = None
        if code != 0:
            return Failed(f"the compiler ended with {code}: {self._last_words()}")
        if self._is_shared:
            compiled_folder.prune(self._cache.parent)
        return Ready(time.monotonic() - self._begun)

    def compiled(self, forward: Forward) -> Forward:
        """`forward`, that compiles itself from the cache when it is first called. Raises OSError."""
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # a full cache leaves nothing for a pool to do
        from . import precompile  # the compiler is imported here, and not by jobs that do not compile

        with os.fdopen(open_regular(self._cache), "rb") as file:
            if os.fstat(file.fileno()).st_uid != os.getuid():
                raise OSError(
                    f"{self._cache.name} was written by another uid: it is not read, because it could run code"
                )
            torch.compiler.load_cache_artifacts(file.read())
        return precompile.compiled(forward)

    def remember(self, compile_s: float | None, adopt_s: float, plain_step_s: float, compiled_step_s: float) -> None:
        """Later jobs of this shape on this machine know what it brings."""
        known = self._known()
        if compile_s is None:
            compile_s = known.compile_s if known else 0.0
        record = Known(compile_s=compile_s, adopt_s=adopt_s, plain_step_s=plain_step_s, compiled_step_s=compiled_step_s)
        try:
            write_json(self._record, record.wire())
        except OSError as error:  # another uid's record, or a full disk: this job has what it wanted
            print(f"what compiling brought is not remembered: {error.strerror}", flush=True)

    def end(self) -> None:
        """No process is left, and no cache that nobody else can use."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None
        if not self._is_shared:
            self._cache.unlink(missing_ok=True)

    @property
    def _log(self) -> Path:
        return self._scratch / "compiler.log"

    def _known(self) -> Known | None:
        try:
            with os.fdopen(open_regular(self._record), "rb") as file:
                return Known.model_validate_json(file.read(4096))
        except (OSError, ValidationError):
            return None

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        errors = [line for line in lines if _ERROR.match(line)]
        return (errors or lines or ["without a word"])[-1].strip()[:_LONGEST_WHY]


def _too_little_room() -> str | None:
    """Why no second process fits beside the job; None when one does."""
    meminfo = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(meminfo["MemAvailable"].split()[0]) * 1024
    if free < SPARE_HOST_BYTES:
        return f"{size_text(free)} of host memory are free, the compiler may need {size_text(SPARE_HOST_BYTES)}"
    if torch.cuda.is_initialized():
        free, _ = torch.cuda.mem_get_info()
        needed = torch.cuda.max_memory_reserved() + SPARE_GPU_BYTES
        if free < needed:
            return f"{size_text(free)} of GPU memory are free, the compiler may need {size_text(needed)}"
    return None
