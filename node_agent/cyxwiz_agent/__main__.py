"""Starts the agent of one node."""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import logging
import os
import signal
import sys
from pathlib import Path
from typing import IO

from cyxwiz_crds import size_bytes
from cyxwiz_kube import Kube, Unavailable
from cyxwiz_protocol.volumes import Volumes, read_volumes

from .address import Address
from .agent import Agent
from .settings import POD_RESOURCES, GpuMode, Settings, host_memory_bytes

log = logging.getLogger("cyxwiz_agent")

USER_AGENT = "cyxwiz-agent"
HEARTBEAT_TIMEOUT_S = 5.0


def parser() -> argparse.ArgumentParser:
    """The command line; every flag has a default that suits the DaemonSet."""
    result = argparse.ArgumentParser(
        prog="cyxwiz-agent",
        description="Registers this node, keeps its Lease, and runs the TrainingJobs bound to it through the runner.",
        epilog="Exit codes: 0 stopped by a signal, 1 cannot start, 2 wrong usage.",
    )
    result.add_argument("--node", default=os.environ.get("NODE_NAME"), help="name of the node (default: $NODE_NAME)")
    result.add_argument("--namespace", default="cyxwiz-system", help="namespace of the Leases (default: %(default)s)")
    result.add_argument("--state", type=Path, default=Path("/var/lib/cyxwiz"), help="folder shared with the runner")
    result.add_argument("--kubeconfig", type=Path, help="default: the pod's own service account")
    result.add_argument("--cpus", type=int, default=os.cpu_count() or 1, help="CPU cores for jobs (default: all)")
    result.add_argument("--memory", type=_size, default=host_memory_bytes(), help="host memory for jobs, such as 8Gi")
    result.add_argument("--max-jobs", type=int, default=16, help="most jobs at a time (default: %(default)s)")
    result.add_argument(
        "--gpu-mode",
        type=GpuMode,
        choices=list(GpuMode),
        default=GpuMode.UNGUARDED,
        metavar="MODE",
        help="unguarded, dedicated (foreign use of a GPU keeps jobs away from it) or reserve (jobs run on the GPUs that"
        " Kubernetes gave their pods) (default: unguarded)",
    )
    result.add_argument(
        "--gpu-resource", default="nvidia.com/gpu", help="what pods ask for to get a GPU (default: %(default)s)"
    )
    result.add_argument(
        "--pod-resources", type=Path, default=POD_RESOURCES, help="the kubelet's socket (default: %(default)s)"
    )
    result.add_argument("--port", type=int, default=0, help="port of /healthz, /readyz, /metrics (default: a free one)")
    result.add_argument(
        "--volumes",
        type=_volumes,
        default=Volumes(),
        metavar="FILE",
        help="named folders behind volume://name/path, and whose jobs may use them, as JSON (default: none)",
    )
    result.add_argument(
        "--logs",
        type=Address.parse,
        metavar="ADDRESS:PORT",
        help="serve models and logs here, by signed paths: a loopback or private address (default: nowhere)",
    )
    return result


def _size(text: str) -> int:
    try:
        return size_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _volumes(text: str) -> Volumes:
    try:
        return read_volumes(Path(text))
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text}: {error}") from error


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT. Returns the exit code."""
    arguments = parser().parse_args(argv)
    if not arguments.node:
        parser().error("no node name: give --node, or set NODE_NAME from the pod's spec.nodeName")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    settings = Settings(
        node=arguments.node,
        namespace=arguments.namespace,
        state=arguments.state,
        kubeconfig=arguments.kubeconfig,
        cpus=arguments.cpus,
        memory_bytes=arguments.memory,
        max_jobs=arguments.max_jobs,
        gpu_mode=arguments.gpu_mode,
        gpu_resource=arguments.gpu_resource,
        pod_resources=arguments.pod_resources,
        port=arguments.port,
        volumes=arguments.volumes,
        logs=arguments.logs,
    )
    try:
        settings.state.mkdir(parents=True, exist_ok=True)
        lock = _only_agent(settings.state)
    except OSError as error:
        print(f"cyxwiz-agent: the state folder {settings.state} cannot be used: {error}", file=sys.stderr)
        return 1
    if lock is None:
        print(f"cyxwiz-agent: another agent already runs on {settings.state}", file=sys.stderr)
        return 1
    with lock:
        return asyncio.run(_serve(settings))


def _only_agent(state: Path) -> IO[str] | None:
    """The open lock file; None when another agent holds it. The kernel drops it with the process, however it ends."""
    file = (state / "agent.lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


async def _serve(settings: Settings) -> int:
    loop = asyncio.get_running_loop()
    main_task = asyncio.current_task()
    assert main_task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, main_task.cancel)
    try:
        async with (
            await Kube.connect(kubeconfig=settings.kubeconfig, user_agent=USER_AGENT) as kube,
            await Kube.connect(
                kubeconfig=settings.kubeconfig, user_agent=USER_AGENT, request_timeout_s=HEARTBEAT_TIMEOUT_S
            ) as heartbeat,
        ):
            await Agent(settings, kube, heartbeat).run()
    except Unavailable as error:
        print(f"cyxwiz-agent: {error}", file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        log.info("agent of node %s stops; its jobs go on", settings.node)
    return 0


if __name__ == "__main__":
    sys.exit(main())
