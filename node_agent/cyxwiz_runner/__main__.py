"""`cyxwiz-runner`: the runner from the command line."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cyxwiz_crds import size_bytes

from .runner import Options, serve
from .spawn import DEFAULT_COMMAND
from .state import AlreadyRunning, hold_state

OK, FAILED, USAGE, ALREADY_RUNNING = 0, 1, 2, 3

DESCRIPTION = """\
Runs training jobs for the agent of this node: keeps trainers ready, starts jobs in them, freezes
them when the agent stops renewing their deadlines, ends and reaps them. Listens on runner.sock
in the state folder, for its own user alone.
"""
EPILOG = """\
signals: SIGTERM and SIGINT end the jobs with the grace, then everything else; a second one ends the grace
exit status: 0 ended by a signal, 1 failed, 2 wrong usage, 3 another runner holds the state folder
"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        state = hold_state(options.state)
        asyncio.run(
            serve(
                state,
                Options(
                    warm=options.warm,
                    warm_gpus=tuple(options.warm_gpu),
                    cpus=options.cpus,
                    data_root=options.data_root,
                    remote=options.remote,
                    memory_bytes=options.memory,
                    mps_command=options.mps_command,
                    grace_s=options.grace,
                    uids=options.uids,
                    trainer_command=options.trainer_command,
                ),
            )
        )
    except AlreadyRunning as error:
        print(f"cyxwiz-runner: {error}", file=sys.stderr)
        return ALREADY_RUNNING
    except OSError as error:  # a folder that cannot be made, a socket path that is too long
        print(f"cyxwiz-runner: {options.state}: {error.strerror or error}", file=sys.stderr)
        return FAILED
    return OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cyxwiz-runner",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--state", metavar="DIR", type=_folder, required=True, help="the node's state folder: socket, jobs, journal"
    )
    parser.add_argument(
        "--warm", metavar="N", type=_count, default=1, help="trainers kept ready for the CPU (default: 1)"
    )
    parser.add_argument(
        "--warm-gpu",
        metavar="UUID",
        action="append",
        default=[],
        help="keep a trainer ready on this GPU; repeatable. `all`: on those that the agent finds healthy",
    )
    parser.add_argument(
        "--cpus",
        metavar="N",
        type=_positive,
        default=len(os.sched_getaffinity(0)),
        help="threads a warm trainer begins with (default: the CPUs of this process)",
    )
    parser.add_argument(
        "--data-root", metavar="DIR", type=_folder, help="where data sets lie; trainers see it as CYXWIZ_DATA_ROOT"
    )
    parser.add_argument(
        "--remote",
        metavar="FILE",
        type=_folder,
        help="what may be fetched over the network, as JSON: cache size, allowed hosts, object stores with their"
        " credentials (default: public data, a cache of 50Gi)",
    )
    parser.add_argument(
        "--memory",
        metavar="SIZE",
        type=_size,
        help="what the node lends to jobs, such as 64Gi: as they reach it, the one furthest over its request is killed"
        " (default: what the container or the machine has)",
    )
    parser.add_argument(
        "--mps-command",
        metavar="JSON",
        type=_words,
        help="the MPS control program through which jobs with gpuMemory share GPUs, as a JSON list; [] shares by time"
        " slices (default: nvidia-cuda-mps-control where it is on PATH)",
    )
    parser.add_argument(
        "--grace", metavar="S", type=_seconds, default=10.0, help="for jobs when the runner is ended (default: 10)"
    )
    parser.add_argument(
        "--uids",
        metavar="FIRST-LAST",
        type=_uids,
        help="a uid of its own for each trainer, from this range, which nobody else on the machine may use; needs root"
        " (default: all have the runner's uid)",
    )
    parser.add_argument(
        "--trainer-command",
        metavar="JSON",
        type=_command,
        default=DEFAULT_COMMAND,
        help='what a trainer is, as a JSON list: ["python", "-m", "cyxwiz_trainer"]; --socket-fd N is appended',
    )
    return parser


def _folder(text: str) -> Path:
    return Path(text).absolute()


def _count(text: str) -> int:
    if (number := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{number} is negative")
    return number


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number} is not at least 1")
    return number


def _seconds(text: str) -> float:
    if not 0 <= (number := float(text)) <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 3600")
    return number


def _size(text: str) -> int:
    try:
        return size_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} is no size such as 64Gi") from error


def _uids(text: str) -> range:
    first, _, last = text.partition("-")
    if not (first.isdecimal() and last.isdecimal()) or not 0 < int(first) <= int(last) < 2**32 - 1:
        raise argparse.ArgumentTypeError(f"{text} is not FIRST-LAST, such as 200000-200999")
    return range(int(first), int(last) + 1)


def _command(text: str) -> list[str]:
    if not (command := _words(text)):
        raise argparse.ArgumentTypeError("not a JSON list of strings")
    return command


def _words(text: str) -> list[str]:
    try:
        words = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from error
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise argparse.ArgumentTypeError("not a JSON list of strings")
    return words


if __name__ == "__main__":
    sys.exit(main())
