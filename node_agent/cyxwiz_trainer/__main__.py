"""`python -m cyxwiz_trainer`: one training process, warm for a runner or for one folder."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

DESCRIPTION = """\
Trains the one job that a folder describes and leaves.

The folder holds job.json; metrics.jsonl, checkpoints/, model/ and trainer.log are written into it, and everything
printed after the start goes to trainer.log.
"""
EXIT_CODES = """\
exit codes:
   0  trained, model/ is complete (or the socket closed before a start)
  10  cannot train; the last record of metrics.jsonl says why
  20  told to stop by SIGTERM; a checkpoint is saved, unless its deadline had passed
  any other: crashed; trainer.log holds the traceback

environment:
  CYXWIZ_DATA_ROOT      folder that file:// data sets lie in
  CUDA_VISIBLE_DEVICES  UUIDs of the job's GPUs, set by the runner; must be those that job.json names
"""


def main(argv: list[str] | None = None) -> int:
    """Runs one job. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m cyxwiz_trainer",
        description=DESCRIPTION,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--folder", type=Path, metavar="PATH", help="train the job of this folder at once")
    way.add_argument(
        "--socket-fd",
        type=int,
        metavar="N",
        help="inherited unix stream socket: become ready, say so, wait for the folder (how a runner starts it)",
    )
    arguments = parser.parse_args(argv)
    if arguments.folder is not None and not (arguments.folder / "job.json").is_file():
        parser.error(f"{arguments.folder} holds no job.json")

    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)  # a job never waits for a terminal; left closed, 0 would become some file's descriptor
    os.close(null)
    # Imported late, so that --help answers at once: torch takes seconds.
    if arguments.folder is None:
        from . import warm

        return warm.serve(arguments.socket_fd)
    from cyxwiz_protocol.job_folder import JobFolder

    from . import job

    folder = JobFolder(path=arguments.folder.resolve())
    return job.run_ranks(folder, job.enter(folder))


if __name__ == "__main__":
    sys.exit(main())
