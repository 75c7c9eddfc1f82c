"""Builds one binary of the Go modules beside this package into the cache, one at a time on the whole machine.

It needs Go and nothing else: cgo is off, so no C compiler is asked for.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import DevclusterError

Log = Callable[[str], None]

FREE_DISK_GB = 8  # module cache 1.1 GB and build cache 3.2 GB when cold, binaries 0.4 GB, and room to live
TAGS = "selinux,notest,grpcnotrace"
PROGRESS_INTERVAL_S = 15.0


@dataclass(frozen=True)
class Module:
    """A folder with `go.mod` and `go.sum`; its tools are built from exactly those versions."""

    folder: Path
    tags: str = TAGS
    """Build tags, joined by commas."""

    def version_of(self, requirement: str) -> str:
        """The version that `go.mod` requires of a module, such as `v1.36.3`."""
        match = re.search(rf"^\s*(?:require )?{re.escape(requirement)} (v\S+)", self.text(), re.MULTILINE)
        if match is None:
            raise DevclusterError(f"{self.folder / 'go.mod'} does not require {requirement}; restore the file.")
        return match[1]

    def go_directive(self) -> tuple[int, int]:
        """The least Go release that `go.mod` accepts, such as (1, 26)."""
        match = re.search(r"^go (\d+)\.(\d+)", self.text(), re.MULTILINE)
        return (int(match[1]), int(match[2])) if match else (1, 0)

    def text(self) -> str:
        try:
            return (self.folder / "go.mod").read_text()
        except OSError as error:
            raise DevclusterError(
                f"The Go module in {self.folder} cannot be read ({error.strerror}): install this package from a "
                "checkout (pip install -e '.[devcluster]'), or point KUBEBUILDER_ASSETS at ready-made binaries."
            ) from error


@dataclass(frozen=True)
class Tool:
    """A binary, the package it is built from, and the linker's `-X` stamps by variable name."""

    name: str
    package: str
    module: Module
    stamps: Mapping[str, str]

    def linker_flags(self) -> str:
        return " ".join(["-s", "-w", *(f"-X {variable}={value}" for variable, value in self.stamps.items())])


def module_hash(module: Module) -> str:
    """12 hex digits that change with either module file or with the way binaries are built."""
    digest = hashlib.sha256(module.tags.encode())
    for name in ("go.mod", "go.sum"):
        module.text()  # the sentence about a missing module, instead of a bare OSError
        digest.update(name.encode() + b"\0" + (module.folder / name).read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def cache_root(environ: Mapping[str, str] = os.environ) -> Path:
    base = environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME") or Path.home()) / ".cache"
    return Path(base) / "cyxwiz" / "devcluster"


def cache_folder(module: Module, go_version: str, environ: Mapping[str, str] = os.environ) -> Path:
    """Where the binaries of these module files, built by this Go, are kept."""
    return cache_root(environ) / f"{module_hash(module)}-{go_version}"


def is_complete(binary: Path) -> bool:
    """Whether a build of this file was finished: its size is the one written down after it."""
    try:
        return binary.stat().st_size == int(binary.with_name(binary.name + ".size").read_text())
    except (OSError, ValueError):
        return False


def cached(tool: Tool, environ: Mapping[str, str] = os.environ) -> Path | None:
    """A finished binary of these module files by the Go that would build it, or by any where none could."""
    try:
        folders = [cache_folder(tool.module, usable_go(tool.module, environ), environ)]
    except DevclusterError:
        folders = sorted(cache_root(environ).glob(f"{module_hash(tool.module)}-*"), reverse=True)
    return next((folder / tool.name for folder in folders if is_complete(folder / tool.name)), None)


def usable_go(module: Module, environ: Mapping[str, str] = os.environ) -> str:
    """The version of the Go that would build this module, such as `go1.26.8`; raises where there is none."""
    go = shutil.which("go", path=environ.get("PATH"))
    if go is None:
        raise DevclusterError(f"It has to be built and `go` was not found on PATH. {_install_go(module)}")
    answer = subprocess.run(
        [go, "env", "GOVERSION"], cwd=module.folder, env=_go_env(environ), capture_output=True, text=True, check=False
    )
    if answer.returncode != 0:  # an older Go that could not download the release that go.mod names, for one
        said = (answer.stderr.strip() or "nothing").splitlines()[-1]
        raise DevclusterError(f"It has to be built and `go` does not work, it says: {said}. {_install_go(module)}")
    version = answer.stdout.strip()
    release = re.match(r"go(\d+)\.(\d+)", version)
    if release and (int(release[1]), int(release[2])) < module.go_directive():
        raise DevclusterError(f"It has to be built and {version} on PATH is too old. {_install_go(module)}")
    return version


def _install_go(module: Module) -> str:
    release = ".".join(map(str, module.go_directive()))
    return f"Install Go {release} or newer (go.dev/dl), or point KUBEBUILDER_ASSETS at ready-made binaries."


def build(tool: Tool, log: Log, environ: Mapping[str, str] = os.environ) -> Path:
    """The finished binary in the cache; waits while another process builds, and takes what that one finished."""
    try:
        go_version = usable_go(tool.module, environ)
    except DevclusterError as error:
        raise DevclusterError(f"There is no {tool.name} yet. {error}") from error
    folder = cache_folder(tool.module, go_version, environ)
    binary = folder / tool.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _build_lock(cache_root(environ) / "build.lock", log):
            if is_complete(binary):
                return binary
            require_free_disk(_free_disk(folder, environ))
            for left_over in folder.glob(".building-*"):
                left_over.unlink()
            _go_build(tool, binary, log, environ)
            return binary
    except OSError as error:
        raise DevclusterError(
            f"The cache {folder} cannot be written ({error.strerror}): set XDG_CACHE_HOME to a writable folder."
        ) from error


def _go_env(environ: Mapping[str, str]) -> dict[str, str]:
    """The caller's environment without what would build for another machine or from other modules."""
    kept = {name: value for name, value in environ.items() if name not in {"GOOS", "GOARCH"}}
    return kept | {"CGO_ENABLED": "0", "GOWORK": "off"}


def _free_disk(folder: Path, environ: Mapping[str, str]) -> dict[Path, int]:
    """Free bytes of each folder that a build fills."""
    answer = subprocess.run(
        ["go", "env", "GOCACHE", "GOMODCACHE"], env=_go_env(environ), capture_output=True, text=True, check=False
    )
    places = [folder, *map(Path, answer.stdout.splitlines())]
    return {place: shutil.disk_usage(place).free for place in places if place.is_dir()}


def require_free_disk(free: Mapping[Path, int]) -> None:
    """Each folder has room for a cold build; raises with the first that has not."""
    for place, free_bytes in free.items():
        if free_bytes < FREE_DISK_GB * 1e9:
            raise DevclusterError(
                f"A build needs {FREE_DISK_GB} GB of free disk and {place} has {free_bytes / 1e9:.1f} GB: free some, "
                "or set XDG_CACHE_HOME, GOCACHE and GOMODCACHE to a larger disk."
            )


@contextlib.contextmanager
def _build_lock(path: Path, log: Log) -> Iterator[None]:
    """Held by one builder per cache; the kernel lets go of it when the holder dies."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log("another process is building; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _go_build(tool: Tool, binary: Path, log: Log, environ: Mapping[str, str]) -> None:
    """`binary` exists whole with its `.size` beside it, or not at all."""
    temporary = binary.with_name(f".building-{tool.name}-{os.getpid()}")
    command = ["go", "build", "-v", "-mod=readonly", "-trimpath", "-buildvcs=false", f"-tags={tool.module.tags}"]
    command += ["-ldflags", tool.linker_flags(), "-o", str(temporary), tool.package]
    log(f"building {tool.name} from {tool.package} (minutes when Go's caches are cold, seconds when warm)")
    started = time.monotonic()
    # -v names every compiled package. It also ends the build when this process is killed: Go dies of the broken pipe.
    process = subprocess.Popen(
        command,
        cwd=tool.module.folder,
        env=_go_env(environ),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    lines: list[str] = []
    reader = threading.Thread(target=lines.extend, args=(process.stderr,), daemon=True)
    reader.start()
    try:
        while True:
            try:
                code = process.wait(timeout=PROGRESS_INTERVAL_S)
                break
            except subprocess.TimeoutExpired:
                log(f"{tool.name}: {_progress(lines)}, {time.monotonic() - started:.0f} s")
        reader.join()
        if code != 0:
            raise DevclusterError(_why_it_failed(tool, code, lines))
        binary.with_name(binary.name + ".size").write_text(str(temporary.stat().st_size))
        temporary.rename(binary)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
        temporary.unlink(missing_ok=True)
    log(f"built {tool.name} in {time.monotonic() - started:.0f} s")


def _progress(lines: list[str]) -> str:
    downloads = sum(line.startswith("go: downloading") for line in lines)
    compiled = len(lines) - downloads
    return f"{compiled} packages compiled" if compiled else f"{downloads} modules downloaded"


def _why_it_failed(tool: Tool, code: int, lines: list[str]) -> str:
    said = [line.rstrip() for line in lines if " " in line and not line.startswith("go: downloading")][-8:]
    advice = "see Go's words below"
    if any(word in line for line in said for word in ("dial tcp", "no such host", "proxy", "TLS handshake")):
        advice = "Go could not download modules: check the network and `go env GOPROXY`"
    return "\n  ".join([f"Building {tool.name} failed (exit status {code}); {advice}.", *said])
