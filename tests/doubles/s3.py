"""moto's server as a process: it speaks S3."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """Its address, as long as the block lasts."""
    with s3_process() as (_, endpoint):
        yield endpoint


@contextlib.contextmanager
def s3_process() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        found = (re.search(r"Running on (http://127\.0\.0\.1:[0-9]+)", line) for line in process.stdout)
        endpoint = next((match[1] for match in found if match), None)
        assert endpoint, "moto did not start"
        yield process, endpoint
    finally:
        process.kill()
        process.wait()
