"""Waits until a control plane can be used, and says why when it cannot."""

import http.client
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from .certificates import KeyPair
from .errors import DevclusterError
from .processes import Process, Record

POLL_INTERVAL_S = 0.05
LOG_LINES = 12

# What an API server has to answer with 200, and how that is said. A Pod can be created once the last one does.
READY = "/readyz"
DEFAULT_ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default"


class PortTakenError(DevclusterError):
    """Another process took a port between its being picked and its being used."""


class Api:
    """Plain GETs as admin; `http.client` asks no proxy, whatever the environment says."""

    def __init__(self, server: str, ca_file: Path, admin: KeyPair) -> None:
        self._address = urlsplit(server).netloc
        self._tls = ssl.create_default_context(cafile=str(ca_file))
        self._tls.load_cert_chain(admin.certificate, admin.key)

    def status(self, path: str) -> int | None:
        """The HTTP status, or None when nobody answers."""
        connection = http.client.HTTPSConnection(self._address, context=self._tls, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()


def wait_for(
    api: Api, path: str, what: str, supervised: Callable[[], Record | None], ended: Callable[[], bool], deadline: float
) -> None:
    """`path` answers 200; raises with the end of the guilty log if a process ends first or the deadline passes."""
    while api.status(path) != 200:
        record = supervised()
        if ended() or (record is not None and record.ended_because is not None):
            raise _died(supervised())
        if time.monotonic() > deadline:
            logs = [] if record is None else [_tail(process) for process in record.processes]
            raise DevclusterError("\n".join([f"{what} in time; is the machine very busy? The logs end:", *logs]))
        time.sleep(POLL_INTERVAL_S)


def _died(record: Record | None) -> DevclusterError:
    guilty = record and record.first_ended()
    if record is None or guilty is None:
        reason = (record and record.ended_because) or "it was killed"
        return DevclusterError(f"The control plane ended while it started: {reason}.")
    tail = _tail(guilty)
    if "address already in use" in tail:
        return PortTakenError(f"A port that {guilty.name} was given is taken by another process; try again.\n{tail}")
    return DevclusterError(f"{record.ended_because} while the control plane started. Its log ends:\n{tail}")


def _tail(process: Process) -> str:
    try:
        lines = process.log.read_text(errors="replace").splitlines() if process.log else []
    except OSError:
        lines = []
    return "\n".join([f"--- {process.name}", *lines[-LOG_LINES:]])
