"""Data that is none: a job that names `probe://token` looks for an API token and a store's keys as hostile code would.

It runs as the job's own process. Run as a script it does the same, which shows that the search finds what is there.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

SECRETS = (b"eyJ", b"AKIDEXAMPLE", b"hunter2")  # any JSON Web Token; the keys of the tests' object store
PLACES = ("/var/run/secrets", "/run/secrets", "/var/lib/cyxwiz", "/var/lib/kubelet", "/tmp", "/etc", "/proc")
NAMES = ("token", "kubeconfig", "environ", "AccessKey", "accessKey", "remote")
ELSEWHERE = ("var/run/secrets/kubernetes.io/serviceaccount/token", "etc/cyxwiz/stores/0/secretAccessKey")


def look() -> dict[str, object]:
    """Files read that hold a token or a key, how many were tried, and who looked."""
    found: list[str] = []
    tried = 0
    for place in PLACES:
        for folder, folders, files in os.walk(place):
            folders[:] = [name for name in folders if name not in ("task", "fd", "fdinfo", "map_files", "cwd")]
            for name in files:
                if not any(part in name for part in NAMES):
                    continue
                tried += 1
                path = Path(folder, name)
                try:
                    if path.is_file() and _holds_a_secret(path):
                        found.append(str(path))
                except OSError:
                    continue
        # Through another process' own view of the files, where the kernel lets this one.
    for process in Path("/proc").glob("[0-9]*"):
        for name in ELSEWHERE:
            tried += 1
            try:
                if _holds_a_secret(process / "root" / name):
                    found.append(str(process / "root" / name))
            except OSError:
                continue
    sockets = [str(path) for path in Path("/var/lib/cyxwiz").glob("*.sock") if _may_connect(path)]
    return {"uid": os.getuid(), "tried": tried, "secrets": found, "sockets": sockets}


def _holds_a_secret(path: Path) -> bool:
    content = path.read_bytes()[:1_000_000]
    return any(secret in content for secret in SECRETS)


def _may_connect(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode) and os.access(path, os.W_OK)
    except OSError:
        return False


def load(request: object) -> object:
    """Raises UserError with what was seen: it becomes the job's message."""
    from cyxwiz_trainer.failures import UserError

    raise UserError("probe " + json.dumps(look()))


if __name__ == "__main__":
    print(json.dumps(look()))
