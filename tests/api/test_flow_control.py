"""The API server files each kind of request under the level that the chart made for it."""

from __future__ import annotations

import re
import subprocess
import time

import pytest

from cyxwiz_platform import Platform
from cyxwiz_platform.platform import NAMESPACE

TAKEN_UP_WITHIN_S = 30.0
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/x"
JOBS = "/apis/cyxwiz.io/v1alpha1/trainingjobs"


def flow_of(platform: Platform, account: str, path: str) -> str:
    """Name of the FlowSchema that a GET of `path` by the service account is filed under, as its answer says."""
    kubectl = platform.cluster.run_kubectl
    token = kubectl("create", "token", account, "-n", NAMESPACE).strip()
    kubeconfig = platform.cluster.kubeconfig_for_token(token, platform.folder / f"{account}.kubeconfig")
    command = [platform.cluster.kubectl, "--kubeconfig", kubeconfig, "get", "--raw", path, "-v=8"]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stderr  # headers, refused or not
    found = re.search(r"X-Kubernetes-Pf-Flowschema-Uid[\":=\[ ]+([0-9a-f-]{36})", said, re.IGNORECASE)
    assert found is not None, said
    rows = kubectl("get", "flowschemas", "-o", r"jsonpath={range .items[*]}{.metadata.uid} {.metadata.name}{'\n'}{end}")
    return dict(line.split() for line in rows.splitlines())[found[1]]


@pytest.mark.parametrize(
    ("account", "path", "schema", "level"),
    [
        ("cyxwiz-agent", LEASE, "cyxwiz-leases", "cyxwiz-fence"),
        ("cyxwiz-agent", JOBS, "cyxwiz-progress", "cyxwiz-progress"),
        ("cyxwiz-operator", JOBS, "cyxwiz-operator", "cyxwiz-fence"),
        ("default", JOBS, "service-accounts", "workload-low"),
    ],
)
def test_leases_and_the_operator_have_a_level_of_their_own(
    idle: Platform, account: str, path: str, schema: str, level: str
) -> None:
    deadline = time.monotonic() + TAKEN_UP_WITHIN_S
    while (filed := flow_of(idle, account, path)) != schema and time.monotonic() < deadline:
        time.sleep(0.5)
    assert filed == schema
    form = "jsonpath={.spec.priorityLevelConfiguration.name}"
    assert idle.cluster.run_kubectl("get", "flowschema", schema, "-o", form) == level
