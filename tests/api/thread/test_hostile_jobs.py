"""Jobs made to harm that the schema cannot tell from others: each ends with its answer, and nothing of it is run.

`tests/api/test_hostile_specs.py` has those that the API server refuses, `tests/unit/trainer/test_hostile_files.py` the
files; a few of the worst are here again, with everything real around them.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cyxwiz_platform import Platform
from tests.thread import Object, digits, finished, is_online, status_of
from tests.unit.test_location import BAD, LONGEST
from tests.unit.trainer.test_hostile_files import MARKER, PICKLE, npy, npz, png

PORT = "{port}"
PUBLIC = "is no public address"
NEVER = "is a link-local or metadata address"

# dataset.uri and words of the answer. {port} is one on which somebody listens, on every address of this machine.
ADDRESSES: list[tuple[str, str]] = [
    ("https://127.0.0.1:{port}/x.npz", PUBLIC),
    ("https://127.8.8.8:{port}/x.npz", PUBLIC),
    ("https://0.0.0.0:{port}/x.npz", PUBLIC),
    ("https://localhost:{port}/x.npz", PUBLIC),
    ("https://LOCALHOST.:{port}/x.npz", PUBLIC),
    ("https://[::1]:{port}/x.npz", PUBLIC),
    ("https://[::]:{port}/x.npz", PUBLIC),
    ("https://[::ffff:127.0.0.1]:{port}/x.npz", PUBLIC),
    ("https://[::ffff:7f00:1]:{port}/x.npz", PUBLIC),
    ("https://[::127.0.0.1]:{port}/x.npz", PUBLIC),
    ("https://[64:ff9b::7f00:1]:{port}/x.npz", PUBLIC),
    ("https://[2002:7f00:1::]:{port}/x.npz", PUBLIC),
    ("https://{own}:{port}/x.npz", PUBLIC),
    ("https://10.0.0.1/x.npz", PUBLIC),
    ("https://192.168.1.1/x.npz", PUBLIC),
    ("https://[fc00::1]/x.npz", PUBLIC),
    ("https://169.254.169.254/latest/meta-data/iam/security-credentials/", NEVER),
    ("https://169.254.170.2/v2/credentials", NEVER),
    ("https://100.100.100.200/latest/meta-data", NEVER),
    ("https://168.63.129.16/machine", NEVER),
    ("https://[fd00:ec2::254]/latest/meta-data", NEVER),
    ("https://[fe80::1]/x.npz", NEVER),
    ("https://[::ffff:169.254.169.254]/latest/meta-data", NEVER),
    ("https://[::ffff:a9fe:a9fe]/latest/meta-data", NEVER),
    ("https://[64:ff9b::a9fe:a9fe]/latest/meta-data", NEVER),
]  # fmt: skip

# What a numeric address is to some readers: text that is no address to this one, so nothing is even looked up.
NOTATIONS: list[tuple[str, str]] = [
    (f"https://{host}:{PORT}/x.npz", "four decimal numbers")
    for host in ("2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "017700000001", "127.1", "127.0.1",
                 "00000177.1", "0x7f.1", "127.0.0.01", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "4294967295",
                 "99999999999", "1.2.3.4.5", "256.256.256.256")
]  # fmt: skip

# Files of a node's data folder, and words of the answer.
FILES: list[tuple[str, str]] = [
    ("passwd.csv", "a link leads out of it"),
    ("folder-link/secret.csv", "a link leads out of it"),
    ("environ.csv", "a link leads out of it"),
    ("pipe.csv", "neither a file nor a folder"),
    ("pickle.npz", "no readable .npz"),
    ("bomb.npz", "it is no data"),
    ("one-line.csv", "resources.memory"),
    ("images", "decompression bomb"),
]

SPECS: list[tuple[str, dict[str, Any], str]] = [
    ("code in an option", {"model": {"name": "cnn", "options": {"width": "__import__('os').abort()"}}}, "width"),
    ("an unknown option", {"model": {"name": "cnn", "options": {"__class__": 1}}}, "__class__"),
    ("a network of all memory", {"model": {"name": "mlp", "options": {"width": 2**31 - 1}}}, "width"),
    ("weights of a metadata service", {"model": {"name": "cnn", "initFrom": {"uri": "https://169.254.169.254/x"}}},
     "model.initFrom.uri"),
    ("weights that climb", {"model": {"name": "cnn", "initFrom": {"uri": "file://../../etc/shadow"}}}, ".. are not"),
    ("weights with a hidden NUL", {"model": {"name": "cnn", "initFrom": {"uri": "file://a%00b"}}}, "U+0000"),
    ("pickled weights", {"model": {"name": "cnn", "initFrom": {"uri": "file://payload.pkl"}}}, "safetensors"),
    ("samples without end", {"dataset": {"uri": "mock://cifar10?samples=999999999999"}}, "samples"),
    ("a data set of code", {"dataset": {"uri": "mock://__import__('os').abort()"}}, "is no mock data set"),
    ("another scheme", {"dataset": {"uri": "gopher://127.0.0.1:11211/x"}}, "gopher"),
    ("a proxy's scheme", {"dataset": {"uri": "http://127.0.0.1/x.npz"}}, "http"),
    ("Python's own scheme", {"dataset": {"uri": "jar:file:///x!/y"}}, "scheme"),
    ("an output that climbs", {"output": {"uri": "volume://models/../../etc"}}, ".. are not allowed"),
    ("an output that climbs by its encoding", {"output": {"uri": "volume://models/%2e%2e/x"}}, ".. are not allowed"),
    ("an output of a placeholder that is code", {"output": {"uri": "s3://models/{0.__class__}"}}, "stands for nothing"),
    ("an output with a password", {"output": {"uri": "s3://key:secret@models/x"}}, "credentials do not belong here"),
    ("an output with a hidden NUL", {"output": {"uri": "s3://models/a\x7fb"}}, "U+007F"),
    ("an output in a volume nobody has", {"output": {"uri": "volume://secrets/x"}}, "no volume secrets"),
    ("an output in a bucket nobody may write", {"output": {"uri": "s3://models/x"}}, "no credentials to write"),
    ("held-out data that climbs", {"dataset": {"uri": "builtin://digits", "validation": {"uri": "file://../x.npz"}}},
     "dataset.validation.uri 'file://../x.npz'"),
    ("held-out data of a metadata service",
     {"dataset": {"uri": "builtin://digits", "validation": {"uri": "https://169.254.169.254/x.npz"}}}, NEVER),
    ("held-out data that is a pickle",
     {"dataset": {"uri": "builtin://digits", "validation": {"uri": "file://pickle.npz"}}}, "no readable .npz"),
    ("a volume nobody has", {"dataset": {"uri": "volume://secrets/x.npz"}}, "secrets"),
]  # fmt: skip


class Listener:
    """Counts who connects to any address of this machine."""

    def __init__(self) -> None:
        self.connections = 0
        self._socket = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            connection.close()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def fill(root: Path) -> None:
    """The data folder of a node whose users are no friends of it."""
    root.mkdir()
    (root / "passwd.csv").symlink_to("/etc/passwd")
    outside = root.with_name("outside")
    outside.mkdir()
    (outside / "secret.csv").write_text("a,b,label\n1,2,0\n3,4,1\n" * 4)
    (root / "folder-link").symlink_to(outside)
    (root / "environ.csv").symlink_to("/proc/self/environ")
    os.mkfifo(root / "pipe.csv")
    (root / "pickle.npz").write_bytes(PICKLE)
    (root / "payload.pkl").write_bytes(PICKLE)
    (root / "bomb.npz").write_bytes(npz(x=npy(np.zeros((2000, 3000), np.float32))))
    with (root / "one-line.csv").open("wb") as file:
        file.truncate(2**30)
    for label in ("a", "b"):
        (root / "images" / label).mkdir(parents=True)
        (root / "images" / label / "bomb.png").write_bytes(png(50_000, 50_000, bytes(100_000)))


def own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing; names the interface that would
        return str(probe.getsockname()[0])


def data(uri: str) -> dict[str, Any]:
    return {"dataset": {"uri": uri}}


BY_URI = [*[(uri, words) for uri, words in BAD if 0 < len(uri) <= LONGEST], *NOTATIONS, *ADDRESSES]
CASES: list[tuple[str, dict[str, Any], str]] = [
    *[(uri, data(uri), words) for uri, words in BY_URI],
    *[(name, data(f"file://{name}") | {"nodeSelector": {"data": "hostile"}}, words) for name, words in FILES],
    *[(name, spec | {"nodeSelector": {"data": "hostile"}}, words) for name, spec, words in SPECS],
]


@pytest.fixture(scope="module")
def ends(thread: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Object]]:
    """All of them, applied at once beside each other; their last states by number."""
    root = tmp_path_factory.mktemp("hostile") / "data"
    fill(root)
    listener = Listener()
    thread.add_machine("node-hostile", cpus=2, memory="4Gi", data=root, labels={"data": "hostile"})
    thread.wait_machines()
    thread.wait_for("computenode", "node-hostile", is_online, what="Online with trainers", within_s=300)
    jobs = [
        digits(f"hostile-{number}", epochs=1, **filled(spec, listener.port))
        for number, (_, spec, _) in enumerate(CASES)
    ]
    thread.apply(*jobs)
    yield {
        number: thread.wait_for("trainingjob", f"hostile-{number}", finished, what="its end", within_s=600)
        for number in range(len(CASES))
    }
    assert listener.connections == 0, "somebody was fetched from"
    listener.close()
    states = [machine.state for machine in thread.machines.values()]
    assert not [path for state in states for path in state.rglob(MARKER)], "a payload ran"
    thread.remove_machine("node-hostile")


def filled(spec: dict[str, Any], port: int) -> dict[str, Any]:
    uri = spec.get("dataset", {}).get("uri", "").replace(PORT, str(port)).replace("{own}", own_address())
    return spec | {"dataset": spec["dataset"] | {"uri": uri}} if uri else spec


@pytest.mark.parametrize("number", range(len(CASES)), ids=[name for name, _, _ in CASES])
def test_a_hostile_job_fails_once_and_says_why(ends: dict[int, Object], number: int) -> None:
    _, _, words = CASES[number]
    status = status_of(ends[number])
    assert (status["phase"], status["reason"], status["attempt"]) == ("Failed", "UserError", 1), status.get("summary")
    assert words in status["summary"]
    assert status["summary"].isprintable()


def test_the_listener_would_hear_of_a_connection() -> None:
    listener = Listener()
    for address in ("127.0.0.1", "::1"):
        with socket.create_connection((address, listener.port)) as connection:
            assert connection.recv(1) == b""
    assert listener.connections == 2
    listener.close()
