"""One machine for the session: a control plane, kubelets, the images, the chart."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from cyxwiz_devcluster.machine import Images, Machine, start, why_not
from tests.cluster.installation import WHOLE_RUNNER, Installation, build_images, runner_dependencies, say
from tests.cluster.storage import Storage
from tests.thread import is_online

SECOND_NODE = "machine-b"


@pytest.fixture(scope="session")
def images() -> Images:
    """Where the chart's images are, once built."""
    if (reason := why_not()) is not None:
        pytest.skip(f"no kubelet can run on this machine: {reason}")
    return Images()


@pytest.fixture(scope="session")
def image_names(images: Images) -> list[str]:
    """The chart's images, built."""
    began = time.monotonic()
    names = build_images(images)
    if not WHOLE_RUNNER:
        runner_dependencies()
    say(f"images built after {time.monotonic() - began:.0f} s: {', '.join(names)}")
    return names


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory, images: Images, image_names: list[str]) -> Iterator[Machine]:
    """A node that has the images."""
    began = time.monotonic()
    running = start(tmp_path_factory.mktemp("machine"), images=images)
    try:
        running.load(images, *image_names)
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


@pytest.fixture(scope="session")
def storage(machine: Machine) -> Storage:
    """Claims and an object store that every node reaches."""
    storage = Storage(machine)
    storage.start()
    return storage


@pytest.fixture(scope="session")
def pair(machine: Machine, storage: Storage) -> Installation:
    """The chart on two nodes, a cordon of which moves jobs, with volumes and a store. It ends with the machine."""
    began = time.monotonic()
    machine.join(SECOND_NODE)
    say(f"second node Ready after {time.monotonic() - began:.1f} s")
    capacity = {"cpus": 2, "memory": "3Gi"}
    release = Installation(machine, capacity=capacity, **storage.values())
    for each in storage.objects():
        release.apply(each)
    say(release.install("operator.cordonDrains=true"))
    say(f"installed on two nodes after {time.monotonic() - began:.1f} s")
    for name in machine.nodes:
        release.wait_for("cn", name, is_online, what="online")
    return release
