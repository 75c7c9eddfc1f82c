"""One machine for the session: a control plane, a kubelet, the images, the chart."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from cyxwiz_devcluster.machine import Images, Machine, start, why_not
from tests.cluster.installation import Installation, build_images, runner_dependencies, say


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A node that has the images."""
    if (reason := why_not()) is not None:
        pytest.skip(f"no kubelet can run on this machine: {reason}")
    images = Images()
    began = time.monotonic()
    names = build_images(images)
    runner_dependencies()
    say(f"images built after {time.monotonic() - began:.0f} s: {', '.join(names)}")
    running = start(tmp_path_factory.mktemp("machine"), images=images)
    try:
        running.load(images, *names)
        say(f"machine with images after {time.monotonic() - began:.0f} s")
        yield running
    finally:
        running.stop(keep_logs=True)


@pytest.fixture(scope="session")
def installation(machine: Machine) -> Installation:
    """The chart is installed, and its pods are ready."""
    release = Installation(machine)
    say(release.install())
    return release
