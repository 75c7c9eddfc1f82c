"""`cyxwiz-devcluster`: a control plane from the command line."""

import argparse
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from . import binaries, cluster, processes
from .console import tell
from .errors import DevclusterError
from .kubeconfig import read_endpoint
from .state import State, default_folder

OK, FAILED, USAGE, NOT_RUNNING = 0, 1, 2, 3

DESCRIPTION = """\
A real Kubernetes control plane (etcd, kube-apiserver, kube-controller-manager) on this
machine's loopback address. It needs Go the first time, to build the binaries, and neither
a container engine nor an image registry. Several may run side by side, each in its folder.
"""
EPILOG = """\
environment:
  CYXWIZ_STATE        folder of the default state folder (default: .state)
  CYXWIZ_KUBECONFIG   an existing cluster to use: nothing is started
  KUBEBUILDER_ASSETS  folder with ready-made binaries; those of a fitting version are taken
  XDG_CACHE_HOME      where built binaries are kept (default: ~/.cache)

exit status: 0 done, 1 failed, 2 wrong usage, 3 nothing runs (`status`, `kubeconfig`, `kubectl`)
"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except DevclusterError as error:
        tell(str(error))
    except OSError as error:  # a full disk, a folder that vanished
        tell(f"{error.strerror or error}: {error.filename or 'no file named'}")
    except KeyboardInterrupt:
        tell("interrupted; nothing was left running")
    return FAILED


def up(options: argparse.Namespace) -> int:
    if named := os.environ.get(cluster.EXISTING):
        print(
            f"{cluster.EXISTING} names {named} ({read_endpoint(Path(named)).server}): it is used, nothing was started."
        )
        return OK
    running = cluster.find(options.state)
    if running is not None:
        print(f"Running already: {running.server}")
    else:
        running = cluster.start(options.state, owned=False)
        print(f"Running: {running.server}")
    here = "" if options.state == default_folder() else f" --state {shlex.quote(str(options.state))}"
    print(f"  use it:   export KUBECONFIG={shlex.quote(str(running.kubeconfig))}")
    print(f"  kubectl:  cyxwiz-devcluster kubectl{here} -- get namespaces")
    print(f"  stop it:  cyxwiz-devcluster down{here}")
    return OK


def down(options: argparse.Namespace) -> int:
    ran = cluster.stop(options.state)
    print(f"Stopped, and removed {options.state}." if ran else f"Nothing runs in {options.state}.")
    return OK


def status(options: argparse.Namespace) -> int:
    if named := os.environ.get(cluster.EXISTING):
        print(f"{cluster.EXISTING} names {named}: {read_endpoint(Path(named)).server} (not asked whether it answers)")
        return OK
    record = processes.read_record(State(options.state).record)
    running = cluster.find(options.state)
    if running is None:
        why = f": {record.ended_because}" if record and record.ended_because else ""
        print(f"Nothing runs in {options.state}{why}.")
        return NOT_RUNNING
    print(f"Running: {running.server}, kubeconfig {running.kubeconfig}")
    for process in record.everything() if record else ():
        print(f"  {process.name:<24} pid {process.pid}")
    return OK


def kubeconfig(options: argparse.Namespace) -> int:
    if (path := _kubeconfig(options)) is None:
        return NOT_RUNNING
    print(path)
    return OK


def kubectl(options: argparse.Namespace) -> int:
    """Does not return where a cluster runs: this process becomes kubectl."""
    if (path := _kubeconfig(options)) is None:
        return NOT_RUNNING
    binary = str(binaries.find_or_build("kubectl"))
    environ = os.environ | {"KUBECONFIG": str(path)}
    if not os.environ.get(cluster.EXISTING):
        environ["KUBECACHEDIR"] = str(options.state / "kubectl-cache")
    return os.execve(binary, [binary, *options.arguments], environ)  # noqa: S606  # a list, no shell


def build(options: argparse.Namespace) -> int:
    started = time.monotonic()
    for name in options.names or binaries.CONTROL_PLANE:
        print(binaries.find_or_build(name), flush=True)
    tell(f"all there after {time.monotonic() - started:.0f} s")
    return OK


def _kubeconfig(options: argparse.Namespace) -> Path | None:
    if named := os.environ.get(cluster.EXISTING):
        return Path(named).absolute()
    running = cluster.find(options.state)
    if running is None:
        tell(f"nothing runs in {options.state}: start it with `cyxwiz-devcluster up`")
    return running.kubeconfig if running else None


def _parser() -> argparse.ArgumentParser:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="cyxwiz-devcluster", description=DESCRIPTION, epilog=EPILOG, formatter_class=style
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(
        function: Callable[[argparse.Namespace], int], about: str, *, state: bool = True
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(
            function.__name__,
            help=about,
            description=about[0].upper() + about[1:] + ".",
            epilog=EPILOG,
            formatter_class=style,
        )
        command.set_defaults(command=function)
        if state:
            command.add_argument(
                "--state",
                metavar="DIR",
                type=lambda text: Path(text).absolute(),
                default=default_folder(),
                help="the cluster's folder (default: devcluster below $CYXWIZ_STATE or .state)",
            )
        return command

    add(up, "start a control plane that keeps running, or say that it runs")
    add(down, "end every process of it and remove what it wrote")
    add(status, "say what runs")
    add(kubeconfig, "print the path of admin's kubeconfig")
    add(kubectl, "run kubectl as admin; put -- before its arguments").add_argument(
        "arguments", nargs="*", metavar="ARG"
    )
    names = add(build, "find or build binaries and print their paths", state=False)
    names.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(binaries.NAMES)} (default: those of `up`)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
