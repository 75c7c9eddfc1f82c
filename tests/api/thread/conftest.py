"""A whole installation at work, on a control plane of its own: an operator decides here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cyxwiz_devcluster import start
from cyxwiz_platform import Platform
from tests.audit import audit_flags
from tests.thread import is_online


@pytest.fixture(scope="session")
def audit_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the API server of `thread` notes every write to our resources, and every Event."""
    return tmp_path_factory.mktemp("audit") / "audit.log"


@pytest.fixture(scope="session")
def thread(tmp_path_factory: pytest.TempPathFactory, audit_log: Path) -> Iterator[Platform]:
    """Operator and two machines of different sizes, running."""
    with (
        start(tmp_path_factory.mktemp("c"), apiserver_flags=audit_flags(audit_log)) as cluster,
        Platform(cluster, tmp_path_factory.mktemp("t")) as platform,
    ):
        platform.install()
        platform.add_machine("node-a", cpus=2, memory="4Gi")
        platform.add_machine("node-b", cpus=1, memory="2Gi")
        platform.start_operator()
        platform.wait_machines()
        for name in platform.machines:
            platform.wait_for("computenode", name, is_online, what="Online with trainers", within_s=300)
        yield platform


@pytest.fixture(autouse=True)
def no_jobs_left(thread: Platform) -> Iterator[None]:
    """The next test finds no job of this one."""
    yield
    thread.cluster.run_kubectl("delete", "trainingjobs", "--all", "-n", "default")


@pytest.fixture
def hasty(thread: Platform) -> Iterator[Platform]:
    """An operator that lets jobs leave as soon as they train."""
    assert thread.operator is not None
    thread.operator.stop()
    thread.start_operator("--preemption-min-runtime", "0")
    yield thread
    thread.operator.stop()
    thread.start_operator()
