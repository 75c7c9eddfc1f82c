"""Fixtures for tests against a real API server: `pytest_plugins = ["cyxwiz_devcluster.pytest_plugin"]`.

One cluster for the session; it dies with the test process however that ends. `CYXWIZ_KUBECONFIG` names an existing
cluster to use instead. Each `namespace` is new, and is deleted after its test without waiting for it.
"""

import json
import uuid
from collections.abc import Iterator

import pytest

from .cluster import Cluster, start


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane; its logs stay in pytest's temporary folder."""
    running = start(tmp_path_factory.mktemp("devcluster"))
    yield running
    running.stop(keep_logs=True)


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """The name of a namespace that nothing else uses."""
    name = f"test-{uuid.uuid4().hex[:10]}"
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    cluster.run_kubectl("create", "-f", "-", input=json.dumps(manifest))
    yield name
    cluster.run_kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found", check=False)
