"""`cyxwiz-operator`: binds TrainingJobs to ComputeNodes and follows them to their end, until SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
from pathlib import Path

import kopf

from . import logs
from .cluster import Unavailable
from .handlers import REGISTRY
from .reservation_pods import ReservationSettings, read_settings
from .runtime import Runtime
from .settings import Settings

OK, FAILED = 0, 1


def main(arguments: list[str] | None = None) -> int:
    """Runs until it is told to stop (0) or cannot go on (1)."""
    settings = parse(arguments)
    logs.configure(settings.log_level, settings.log_format)
    # Jobs and nodes live long and are freed by count, not by search. As Python sets it the collector walks through all
    # of them again and again while a long list comes in: more than half of the time that reading it takes.
    gc.set_threshold(50_000, 20, 100)
    os.environ.setdefault("LOGNAME", "cyxwiz-operator")  # kopf asks who runs it, and a container's uid has no name
    try:
        return asyncio.run(_serve(settings))
    except (OSError, Unavailable) as error:  # a port is taken, no kubeconfig
        print(f"cyxwiz-operator: {error}", file=sys.stderr)
        return FAILED


async def _serve(settings: Settings) -> int:
    async with Runtime.open(settings) as runtime:
        await kopf.operator(
            registry=REGISTRY,
            clusterwide=True,
            standalone=True,
            stop_flag=runtime.over,
            memo=kopf.Memo(runtime=runtime),
        )
        return FAILED if runtime.failed else OK


def parse(arguments: list[str] | None) -> Settings:
    """The settings that the command line asks for; exits on a wrong one."""
    default = Settings()
    parser = argparse.ArgumentParser(
        prog="cyxwiz-operator", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--kubeconfig",
        type=Path,
        default=os.environ.get("KUBECONFIG"),
        metavar="PATH",
        help="how to reach the API server ($KUBECONFIG); without one the pod's service account is used",
    )
    parser.add_argument("--namespace", default=default.namespace, help="where the agents keep their Leases")
    parser.add_argument(
        "--health-port", type=int, default=default.health_port, metavar="PORT", help="serves /healthz and /readyz"
    )
    parser.add_argument(
        "--metrics-port", type=int, default=default.metrics_port, metavar="PORT", help="serves /metrics"
    )
    parser.add_argument(
        "--cordon-drains",
        action=argparse.BooleanOptionalAction,
        default=default.cordon_drains,
        help="let jobs save a checkpoint and leave nodes that are cordoned, as kubectl drain does first",
    )
    parser.add_argument(
        "--preemption",
        action=argparse.BooleanOptionalAction,
        default=default.preemption,
        help="let jobs of higher priority make others save a checkpoint and leave",
    )
    parser.add_argument(
        "--preemption-min-runtime",
        dest="preemption_min_runtime_s",
        type=float,
        default=default.preemption_min_runtime_s,
        metavar="SECONDS",
        help="leave jobs alone that have trained for less",
    )
    parser.add_argument(
        "--reservations",
        type=_reservations,
        default=default.reservations,
        metavar="FILE",
        help="reserve the GPUs of each job through Kubernetes, by pods as this JSON file says",
    )
    parser.add_argument(
        "--log-level",
        choices=("DEBUG", "INFO", "WARNING", "ERROR"),
        default=default.log_level,
        help="least severe lines",
    )
    parser.add_argument(
        "--log-format", choices=("text", "json"), default=default.log_format, help="one line per change of state, as"
    )
    return Settings(**vars(parser.parse_args(arguments)))


def _reservations(text: str) -> ReservationSettings:
    try:
        return read_settings(Path(text))
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text}: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
