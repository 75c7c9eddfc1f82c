"""`python -m cyxwiz_trainer.precompile BLUEPRINT OUTPUT [JOB_FOLDER]`: compiles a step in a process of its own.

What comes of it is Inductor's cache in one file, from which another process compiles the same step in seconds. It
runs beside a job that is training, so that neither the compiler's time nor its crash is the job's. It ends with the
job's process, and when the deadline in the job's folder has passed: it computes, too.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from cyxwiz_protocol.job_folder import JobFolder, write_whole

from .blueprint import Blueprint
from .device import Device, set_float32_precision
from .forward import Forward
from .leash import leave_in_time

NICE = 10


def compiled(forward: Forward) -> Forward:
    """`forward`, compiled when it is first called. Both processes must compile alike, or the cache is of no use."""
    return torch.compile(forward, fullgraph=True, dynamic=False)


def main() -> None:
    """The cache is written whole, or the process ends with another exit code than 0."""
    os.nice(NICE)
    leave_in_time(JobFolder(Path(sys.argv[3])) if len(sys.argv) > 3 else None)
    blueprint = Blueprint.model_validate_json(Path(sys.argv[1]).read_bytes())
    torch.set_num_threads(blueprint.threads)
    set_float32_precision(exact=blueprint.precision == "float32")
    where = torch.device("cpu") if blueprint.device == "cpu" else torch.device("cuda", 0)
    dtype = None if blueprint.autocast is None else getattr(torch, blueprint.autocast)
    forward, inputs, targets = blueprint.build(Device(where, dtype, blueprint.device))
    loss, _ = compiled(forward)(inputs, targets)
    loss.backward()
    if where.type == "cuda":
        torch.cuda.synchronize()  # sync: an error of a kernel must be known before its code is handed on
    artifacts = torch.compiler.save_cache_artifacts()
    if artifacts is None:
        raise SystemExit("the compiler left nothing to keep")
    write_whole(Path(sys.argv[2]), artifacts[0])


if __name__ == "__main__":
    main()
