"""The folder that holds everything of one cluster, and nothing of anybody else's."""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import DevclusterError

OURS = (
    "cluster.json",
    "processes.json",
    "processes.new",
    "kubeconfig",
    "ca.crt",
    "pki",
    "etcd",
    "logs",
    "kubectl-cache",
    "machine",
)


def default_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """`devcluster` below `$CYXWIZ_STATE`, else below `.state` in the current folder."""
    return Path(environ.get("CYXWIZ_STATE") or ".state").absolute() / "devcluster"


@dataclass(frozen=True)
class State:
    folder: Path

    @property
    def marker(self) -> Path:
        """Says that this folder is ours, and whether we made it."""
        return self.folder / "cluster.json"

    @property
    def record(self) -> Path:
        return self.folder / "processes.json"

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    @property
    def pki(self) -> Path:
        return self.folder / "pki"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def is_ours(self) -> bool:
        return self.marker.is_file()

    def facts(self) -> dict[str, object]:
        """What was written down about the cluster, empty where there is none."""
        try:
            return json.loads(self.marker.read_text())
        except (OSError, ValueError):
            return {}

    def note(self, **facts: object) -> None:
        """These facts are added to the marker."""
        temporary = self.folder / ".cluster.json"
        temporary.write_text(json.dumps(self.facts() | facts))
        temporary.replace(self.marker)

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """The folder exists, is writable, is ours, and no other command works on it inside the block."""
        with contextlib.ExitStack() as stack:
            try:
                made = not self.folder.exists()
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                stack.enter_context(self._locked())
                if not self.is_ours() and any(self.folder.iterdir()):
                    raise DevclusterError(
                        f"{self.folder} holds files that are not of a devcluster: name a new folder (--state)."
                    )
                self.note(made_folder=self.facts().get("made_folder", made))
            except OSError as error:
                raise DevclusterError(
                    f"{self.folder} cannot be used as a state folder ({error.strerror}): name another with --state, "
                    "or set CYXWIZ_STATE."
                ) from error
            yield

    def clear(self, *, keep_logs: bool = False) -> None:
        """Nothing that was made here is left, nor the folder if it was made here and is empty now.

        Kept logs stay in a folder that is still ours, so that the next start may use it.
        """
        made_folder = self.facts().get("made_folder", False)
        self.empty(keep=("logs", "cluster.json") if keep_logs else ())
        if made_folder:
            with contextlib.suppress(OSError):  # logs or somebody else's files are in it
                self.folder.rmdir()

    def empty(self, keep: Collection[str] = ("cluster.json",)) -> None:
        """Of what was made here only these names are left; the folder stays, and with it the lock on it."""
        for name in OURS:
            path = self.folder / name
            if name in keep:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Holds a lock on the folder itself, so that no lock file is left over."""
        while True:
            descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if self.folder.exists() and os.path.samestat(os.fstat(descriptor), self.folder.stat()):
                    yield
                    return
            finally:
                os.close(descriptor)
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # the last holder removed it
