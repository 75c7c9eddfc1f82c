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
                    grace_s=options.grace,
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
        "--warm-gpu", metavar="UUID", action="append", default=[], help="keep a trainer ready on this GPU; repeatable"
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
        "--grace", metavar="S", type=_seconds, default=10.0, help="for jobs when the runner is ended (default: 10)"
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


def _command(text: str) -> list[str]:
    try:
        command = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from error
    if not isinstance(command, list) or not command or not all(isinstance(part, str) for part in command):
        raise argparse.ArgumentTypeError("not a JSON list of strings")
    return command


if __name__ == "__main__":
    sys.exit(main())
