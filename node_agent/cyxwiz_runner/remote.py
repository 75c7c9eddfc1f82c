"""The administrator's file of what may be fetched (`--remote`), with the credentials that lie beside it.

A store may name a folder as its `credentials`, such as a mounted Secret: its files accessKeyId, secretAccessKey and
sessionToken are put in their place. The runner reads them, because the fetching process has another uid and must not
reach the folder itself. What the rest means is `cyxwiz_store.config`'s.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILES = ("accessKeyId", "secretAccessKey", "sessionToken")
REQUIRED = frozenset(FILES[:2])


def read_remote(path: Path) -> dict[str, Any]:
    """The file as JSON, every store with its credentials. Raises OSError, ValueError, which quote no line of it."""
    remote = json.loads(path.read_bytes())
    stores = remote.get("stores") if isinstance(remote, dict) else None
    for store in stores if isinstance(stores, list) else ():
        if isinstance(store, dict) and (folder := store.pop("credentials", None)) is not None:
            store |= _credentials(Path(str(folder)))
    return remote


def _credentials(folder: Path) -> dict[str, str]:
    found = {name: (folder / name).read_text().strip() for name in FILES if (folder / name).is_file()}
    if missing := REQUIRED - found.keys():
        raise ValueError(f"{folder} has no file {' and no '.join(sorted(missing))}")
    return found
