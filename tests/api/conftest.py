"""One control plane with the chart's resources, permissions and policies; nothing of the platform runs on it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from cyxwiz_devcluster import Cluster
from cyxwiz_kube import Kube
from cyxwiz_platform import Platform


@pytest.fixture(scope="session")
def idle(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """The chart's part is installed. No operator decides, so tests write every status themselves."""
    platform = Platform(cluster, tmp_path_factory.mktemp("idle"))
    platform.install()
    return platform


@pytest_asyncio.fixture
async def admin(idle: Platform) -> AsyncIterator[Kube]:
    """A client with every right."""
    async with await Kube.connect(kubeconfig=idle.cluster.kubeconfig, user_agent="cyxwiz-tests") as kube:
        yield kube
