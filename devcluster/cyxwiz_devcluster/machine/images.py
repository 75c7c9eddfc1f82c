"""Container images without an engine: built by buildah, made of Debian's own packages, kept in its local storage."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cyxwiz_devcluster.console import tell
from cyxwiz_devcluster.errors import DevclusterError

from .runtime import PAUSE_IMAGE

BASE_IMAGE = "localhost/cyxwiz-base:bookworm"
SUITE = "bookworm"
PACKAGES = ("python3", "python3-venv", "ca-certificates")
CA_FOLDER = Path("/etc/ssl/certs")
PAUSE_PROGRAM = """\
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
static void leave(int number) { (void)number; _exit(0); }
static void reap(int number) { (void)number; while (waitpid(-1, 0, WNOHANG) > 0); }
int main(void) { signal(SIGTERM, leave); signal(SIGINT, leave); signal(SIGCHLD, reap); for (;;) pause(); }
"""


class Images:
    """What buildah has on this machine, under full names such as localhost/cyxwiz-agent:dev."""

    def __init__(self, log: Callable[[str], None] = tell) -> None:
        self._log = log

    def base(self) -> str:
        """The name of an image with Debian's Python; made once, in about half a minute."""
        if not self._has(BASE_IMAGE):
            self._log(f"making {BASE_IMAGE} with debootstrap")
            with tempfile.TemporaryDirectory() as folder:
                _run("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, folder)
                for cached in Path(folder, "var/cache/apt/archives").glob("*.deb"):
                    cached.unlink()
                self._commit(BASE_IMAGE, Path(folder), ["--env=PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"])
        return BASE_IMAGE

    def pause(self) -> str:
        """The name of the image that holds a pod's namespaces."""
        if not self._has(PAUSE_IMAGE):
            with tempfile.TemporaryDirectory() as folder:
                source = Path(folder, "pause.c")
                source.write_text(PAUSE_PROGRAM)
                _run("cc", "-static", "-Os", "-o", str(source.with_name("pause")), str(source))
                source.unlink()
                self._commit(PAUSE_IMAGE, Path(folder), ['--entrypoint=["/pause"]'])
        return PAUSE_IMAGE

    def build(
        self,
        name: str,
        dockerfile: Path,
        context: Path,
        *,
        target: str | None = None,
        arguments: Mapping[str, str] | None = None,
    ) -> str:
        """`name`, built from `dockerfile`; layers that have not changed are taken from the last build."""
        command = ["buildah", "build", "--isolation=chroot", "--pull=never", "--layers", "--timestamp=0"]
        command += [f"--file={dockerfile}", f"--tag={name}", f"--volume={CA_FOLDER}:{CA_FOLDER}:ro"]
        command += [f"--target={target}"] if target else []
        command += [f"--build-arg={key}={value}" for key, value in (arguments or {}).items()]
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as pip:
            pip.write(pip_configuration(os.environ))
            pip.flush()
            _run(*command, f"--secret=id=pip,src={pip.name}", str(context))
        return name

    def save(self, names: Sequence[str], archive: Path) -> None:
        """One OCI archive with all of them for `ctr images import`; a layer that several have is in it once."""
        with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
            for name in names:
                _run("buildah", "push", "--disable-compression", "--quiet", name, f"oci:{folder}:{name}")
            _run("tar", "--create", f"--file={archive}", f"--directory={folder}", ".")

    def _has(self, name: str) -> bool:
        answer = subprocess.run(["buildah", "inspect", "--type=image", name], capture_output=True, check=False)
        return answer.returncode == 0

    def _commit(self, name: str, root: Path, configuration: Sequence[str]) -> None:
        container = _run("buildah", "from", "scratch").strip()
        try:
            _run("buildah", "add", "--quiet", container, f"{root}/", "/")
            _run("buildah", "config", *configuration, container)
            _run("buildah", "commit", "--quiet", "--timestamp=0", container, name)
        finally:
            _run("buildah", "rm", container)


def pip_configuration(environ: Mapping[str, str]) -> str:
    """pip.conf with what the environment says about package indexes, for builds on the same network."""
    options = ("index-url", "extra-index-url", "cert", "timeout", "default-timeout")
    said = {option: environ.get(f"PIP_{option.upper().replace('-', '_')}") for option in options}
    return "\n".join(["[global]", *(f"{option} = {value}" for option, value in said.items() if value), ""])


def _run(*command: str) -> str:
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        said = (answer.stderr.strip() or answer.stdout.strip())[-3000:]
        raise DevclusterError(f"{' '.join(command[:2])} failed (exit status {answer.returncode}): {said}")
    return answer.stdout
