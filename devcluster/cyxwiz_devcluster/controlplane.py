"""What a control plane is started with: its ports, and the command line of each component. Pure but for the ports."""

import contextlib
import socket
from dataclasses import dataclass
from pathlib import Path

from .certificates import Certificates, KeyPair

SERVICE_CIDR = "10.96.0.0/16"
ISSUER = "https://kubernetes.default.svc.cluster.local"
# The API server refuses a loopback address here. With the endpoint reconciler off nobody is sent to it, so it is one
# of the addresses that RFC 5737 keeps for documentation.
ADVERTISE_ADDRESS = "192.0.2.1"


@dataclass(frozen=True)
class Ports:
    """Loopback ports of one cluster."""

    etcd: int
    etcd_peer: int
    api: int

    @property
    def server(self) -> str:
        return f"https://127.0.0.1:{self.api}"


def pick_ports() -> Ports:
    """Three different ports that were free a moment ago; another process may still be quicker."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return Ports(*(each.getsockname()[1] for each in sockets))


def etcd_command(binary: Path, data: Path, ports: Ports, keys: Certificates) -> list[str]:
    """TLS in both directions: etcd knows no users, so who reaches its port would be above every RBAC rule."""
    client, peer = f"https://127.0.0.1:{ports.etcd}", f"https://127.0.0.1:{ports.etcd_peer}"
    tls = {"cert-file": keys.etcd.certificate, "key-file": keys.etcd.key, "trusted-ca-file": keys.ca.certificate}
    return [
        str(binary),
        "--name=devcluster",
        f"--data-dir={data}",
        "--unsafe-no-fsync",
        "--log-level=error",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=devcluster={peer}",
        "--client-cert-auth",
        "--peer-client-cert-auth",
        *(f"--{prefix}{flag}={path}" for prefix in ("", "peer-") for flag, path in tls.items()),
    ]


def apiserver_command(binary: Path, ports: Ports, keys: Certificates) -> list[str]:
    """On loopback alone, and nobody is told that address."""
    local = ["--bind-address=127.0.0.1", f"--advertise-address={ADVERTISE_ADDRESS}", "--endpoint-reconciler-type=none"]
    return [*_apiserver_command(binary, ports, keys), *local]


def reachable_apiserver_command(
    binary: Path, ports: Ports, keys: Certificates, address: str, kubelet_client: KeyPair
) -> list[str]:
    """For pods at `address` and through the Service `kubernetes`; it asks kubelets for logs and commands."""
    return [
        *_apiserver_command(binary, ports, keys),
        "--bind-address=0.0.0.0",
        f"--advertise-address={address}",
        f"--kubelet-client-certificate={kubelet_client.certificate}",
        f"--kubelet-client-key={kubelet_client.key}",
        "--kubelet-preferred-address-types=InternalIP",  # else it tries to resolve the node's name
        "--enable-aggregator-routing=true",
    ]


def _apiserver_command(binary: Path, ports: Ports, keys: Certificates) -> list[str]:
    return [
        str(binary),
        f"--etcd-servers=https://127.0.0.1:{ports.etcd}",
        f"--etcd-cafile={keys.ca.certificate}",
        f"--etcd-certfile={keys.etcd.certificate}",
        f"--etcd-keyfile={keys.etcd.key}",
        f"--secure-port={ports.api}",
        f"--cert-dir={keys.server.key.parent}",
        f"--tls-cert-file={keys.server.certificate}",
        f"--tls-private-key-file={keys.server.key}",
        f"--client-ca-file={keys.ca.certificate}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--service-account-issuer={ISSUER}",
        f"--service-account-key-file={keys.service_account_key}",
        f"--service-account-signing-key-file={keys.service_account_key}",
        f"--service-cluster-ip-range={SERVICE_CIDR}",
        "--profiling=false",
    ]


def controller_manager_command(binary: Path, kubeconfig: Path, keys: Certificates) -> list[str]:
    """Garbage collection, namespace deletion, service accounts; it listens nowhere."""
    return [
        str(binary),
        f"--kubeconfig={kubeconfig}",
        "--secure-port=0",
        "--controllers=*",
        "--use-service-account-credentials=true",
        "--leader-elect=false",
        "--kube-api-qps=500",  # at the default of 20 the first service account `default` took 5 s longer
        "--kube-api-burst=1000",
        f"--root-ca-file={keys.ca.certificate}",
        f"--service-account-private-key-file={keys.service_account_key}",
        "--profiling=false",
    ]
