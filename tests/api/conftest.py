"""One control plane with the chart's resources, permissions and policies for all api tests of a session."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from cyxwiz_devcluster import Cluster
from cyxwiz_kube import Kube
from cyxwiz_platform import Platform


@pytest.fixture(scope="session")
def installed(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """The cluster once `kubectl apply` of the chart is done. Nothing of the platform runs."""
    Platform(cluster, tmp_path_factory.mktemp("install")).install()
    return cluster


@pytest_asyncio.fixture
async def admin(installed: Cluster) -> AsyncIterator[Kube]:
    """A client with every right."""
    async with await Kube.connect(kubeconfig=installed.kubeconfig, user_agent="cyxwiz-tests") as kube:
        yield kube


@pytest.fixture
def platform(installed: Cluster, tmp_path: Path) -> Iterator[Platform]:
    """Nothing runs yet; whatever a test starts ends with it, and the cluster is left without jobs and nodes."""
    with Platform(installed, tmp_path) as started:
        yield started
    for kind in ("trainingjobs", "computenodes", "nodes"):
        namespaces = ["-A"] if kind == "trainingjobs" else []
        names = installed.run_kubectl("get", kind, *namespaces, "--no-headers", "--ignore-not-found").split()
        if names:
            everywhere = ["--all", *namespaces] if namespaces else ["--all"]
            installed.run_kubectl("delete", kind, *everywhere)
    installed.run_kubectl("delete", "pods,leases", "-n", "cyxwiz-system", "--all", "--force", "--grace-period=0")
