"""The finished model in more formats, each made by a process of its own from the files of `model/`.

The weights are complete and told before the first of them begins: neither a package that is missing nor a crash in an
exporter, nor one that hangs, can take the result of training away.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from cyxwiz_protocol.job_folder import JobFolder
from cyxwiz_protocol.records import ExportRecord

from . import export, files
from .fence import Fence, Stop
from .leash import CANNOT

WITHIN_S = 900.0
"""Longest that one format may take."""
SAMPLES = "inputs"
_SAMPLES_COMPARED = 32
_NAP_S = 0.05
_LONGEST_MESSAGE = 240


@dataclass(frozen=True)
class Converter:
    """A module of this package: `python -m MODULE MODEL_FOLDER OUTPUT SAMPLES JOB_FOLDER`.

    It leaves with 0 when OUTPUT is complete and checked; the last line that it prints says what is true of it.
    """

    module: str
    name: str
    """Of the file beside the weights."""


CONVERTERS = {
    "onnx": Converter("cyxwiz_trainer.to_onnx", "model.onnx"),
    "tensorboard": Converter("cyxwiz_trainer.to_tensorboard", "events.out.tfevents.cyxwiz"),
}


def convert(
    folder: JobFolder,
    formats: Iterable[str],
    samples: Tensor,
    threads: int,
    fence: Fence,
    stop: Stop,
    tell: Callable[[ExportRecord], None],
) -> None:
    """Each of `formats` lies in `model/` and in its sums, or its record says why not.

    `samples` are held-out ones: what a format answers to the first of them is compared.
    """
    wanted = [name for name in dict.fromkeys(formats) if name in CONVERTERS]
    if not wanted:
        return
    with tempfile.TemporaryDirectory(prefix=".conversion-", dir=folder.path) as scratch:
        compared = Path(scratch) / "samples.safetensors"
        files.write_tensors(compared, {SAMPLES: samples[:_SAMPLES_COMPARED].cpu()})
        for name in wanted:
            fence.wait()
            tell(_converted(folder, name, compared, threads, stop))


def _converted(folder: JobFolder, name: str, samples: Path, threads: int, stop: Stop) -> ExportRecord:
    converter = CONVERTERS[name]
    output = samples.with_name(converter.name)
    try:
        said = _run(converter.module, folder, output, samples, threads, stop)
        digest = export.add(folder, output)
    except (NotConverted, OSError) as error:
        print(f"{name} was not written: {error}", file=sys.stderr, flush=True)
        return ExportRecord(t=time.time(), format=name, message=f"not written: {error}"[:_LONGEST_MESSAGE])
    final = folder.model / converter.name
    return ExportRecord(
        t=time.time(),
        format=name,
        message=said[:_LONGEST_MESSAGE],
        path=f"{folder.model.name}/{converter.name}",
        sha256=digest,
        bytes=final.stat().st_size,
    )


class NotConverted(Exception):
    """There is no such file, and why."""


def _run(module: str, folder: JobFolder, output: Path, samples: Path, threads: int, stop: Stop) -> str:
    """What the converter has printed last. Raises NotConverted, OSError; no process of it is left."""
    # -B: importing the network must leave no compiled copy of it among the files.
    command = [sys.executable, "-s", "-P", "-B", "-m", module, *map(str, (folder.model, output, samples, folder.path))]
    log = samples.with_name("log")
    with log.open("wb") as printed:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            # No GPU: it takes nothing of the job's memory there. Its processors are the job's.
            env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": str(threads)},
        )
        try:
            code = _wait(process, stop)
        finally:
            process.kill()
            process.wait()
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    last = lines[-1] if lines else "without a word"
    if code == 0:
        return last
    raise NotConverted(last if code == CANNOT else f"the process that writes it ended with {code}: {last}")


def _wait(process: subprocess.Popen[bytes], stop: Stop) -> int:
    """Its exit code. Raises NotConverted when it takes too long, or the job is told to stop."""
    begun = time.monotonic()
    while (code := process.poll()) is None:
        if stop.requested:
            raise NotConverted("the job was told to stop")
        if time.monotonic() > begun + WITHIN_S:
            raise NotConverted(f"it took longer than {WITHIN_S:.0f} s")
        time.sleep(_NAP_S)
    return code
